"""Gemma 3 270M (the base model) learns arithmetic in words by RL, R1-Zero-style, on a laptop: a reward for right answers alone.

    rljax reproduce --config gemma3_270m --workdir runs/gemma3                            # sums, differences and products
    rljax reproduce --config gemma3_270m:level=5,weights=FOLDER --workdir runs/lecture    # the lecture's question
    rljax cold-start --config gemma3_270m:level=5,cold --workdir runs/cold                # R1-style: a cold start first

``weights`` is a Hugging Face folder, or a name on the hub; by default google/gemma-3-270m, whose licence has to be accepted there.
The arguments are those of configs/smollm2.py. Of the weights .17 billion are the embedding of 262,144 tokens: fewer columns
of logits are held at once.
"""

from . import common


def get_config(arg=None):
    arg = common.parse_word_problems(arg, "google/gemma-3-270m")
    c = common.base()
    common.word_problems(c, arg)
    c.model.logprob_chunk = 64
    if arg.short:
        common.shorten(c)
    return c
