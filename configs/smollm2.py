"""SmolLM2-135M-Instruct learns arithmetic in words by RL, R1-Zero-style, on a laptop: a reward for right answers, nothing else.

    rljax reproduce --config smollm2 --workdir runs/smollm2                           # sums, differences and products
    rljax reproduce --config smollm2:level=5,weights=FOLDER --workdir runs/lecture    # the lecture's question
    rljax cold-start --config smollm2:level=5,cold --workdir runs/cold                # R1-style: a cold start first

``weights`` is a Hugging Face folder, or a name on the hub; by default HuggingFaceTB/SmolLM2-135M-Instruct. RL starts from the
weights as they are: three worked examples in the prompt show how to answer. All of them answer in steps; with ``in_steps=0.5``
half of them answer at once, and RL has to find out what pays. All weights learn, in float32, unless ``adapters`` names a rank.
Levels 1 to 6 are those of rljax/tasks/word_problems.py; level 6 wants ``tokens=96``. ``cold`` is for `rljax cold-start`: SFT on
the model's own right attempts takes the examples out of the prompt.

Expected, levels 1 and 2, seed 0, 40 steps: pass@1 .180 -> .766 on 48 test problems with 8 attempts each, length 25 -> 18 tokens, in 28
minutes of CPU time, compilation and evaluations included. ``level=1,adapters=16``, three seeds, 40 steps: .102, .122, .109 -> .914,
.867, .810 in 18 minutes on two cores. Levels with several calculations were not trained.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_word_problems(arg, "HuggingFaceTB/SmolLM2-135M-Instruct")
    c = common.base()
    common.word_problems(c, arg)
    if arg.short:
        common.shorten(c)
    return c
