"""Attempts per prompt at equal samples; temperature; KL; a context limit that is raised late.

python -m experiments.ablate --config configs/ablations/attempts.py --workdir runs/attempts --seeds 4
"""

from configs.ablations import small

get_config = small.get_config


def get_ablation():
    return dict(
        question="How many attempts at each prompt, how random, how near to the start, how long?",
        hypothesis="At equal samples 8 to 32 attempts do about the same, two do worse: most pairs agree. A strong KL term holds "
        "the policy at its start. Thinking is cut off at a low limit, and grows once the limit is raised.",
        arms=(
            ("G=16",),
            *((f"G={g}", f"rl.group_size={g}", f"rl.prompts={256 // g}") for g in (2, 4, 8, 32, 64)),
            ("temperature .6", "rl.temperature=0.6"),
            ("temperature 1.4", "rl.temperature=1.4"),
            ("KL .01", "rl.row.kl=k3(coef=0.01)"),
            ("KL .3", "rl.row.kl=k3(coef=0.3)"),
            ("24 tokens", "rl.limit.tokens=24", "rl.limit.until=50"),
            ("24 tokens, 80 from step 25 on", "rl.limit.tokens=24", "rl.limit.until=25"),
        ),
        claims=(
            "pass@1: G=2 < G=16",
            "pass@1: G=64 ~ G=16 [0.05]",
            "pass@1: temperature .6 < G=16",
            "pass@1: temperature 1.4 < G=16",
            "pass@1: KL .3 < G=16",
            "length: 24 tokens < G=16",
            "length: 24 tokens, 80 from step 25 on > 24 tokens",
        ),
        measures=("pass@1", "length", "truncated"),
        figures=("ends", "curves"),
    )
