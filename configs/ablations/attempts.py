"""Attempts per prompt at equal samples; temperature; KL; a context limit that is raised late.

rljax ablate --config ablations/attempts --workdir runs/attempts --seeds 3

Expected, seeds 0 to 2, pass@1 .27 before, mean and 95 % interval after: G = 2, 4, 8, 16, 32, 64 .82 [.78, .85], .84
[.80, .88], .85 [.82, .88], .83 [.74, .93], .81 [.71, .90], .77 [.70, .84]; temperature .6 .74 [.66, .82], 1.4 .79
[.66, .93]; KL .01 .83 [.74, .92], .3 .42 [.35, .49]; 24 tokens .44 [.20, .69], length 25.4, raised at step 25 .73
[.54, .91], length 35.0 (14.0 before). All of it: docs/ablations.md.
"""

from . import small

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
