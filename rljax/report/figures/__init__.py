"""Figures as PNG files, drawn from the records and samples of runs.

``runs`` is a list of runs, one for each seed. A run is the list of its ``metrics.jsonl`` records. Bands are 95 % intervals
(``rljax.metrics.intervals``). For one run they are over its questions, where its records have standard errors. For several
runs they are over seeds, and each run is also a thin line. A key that no record has is left out. A figure that would be
empty raises UserError. matplotlib is imported by the functions that draw, not with this module.

curves.py      accuracy, response length (DeepSeek-R1-Zero's Figures 2 and 3), strategies, skills, selection rules
training.py    small panels: the training log, and further held-out measures
behaviours.py  counted behaviours, and the first aha
attempts.py    the attempts at one prompt, before and after RL
arms.py        the arms of an ablation
evaluation.py  one evaluation: pass@k, cons@k, pass@1 by level or data set
budgets.py     accuracy against thinking tokens, with budget forcing
models.py      several models
learning.py    what one kind of run learned, or several beside each other, in one small picture
drawing.py     what the figures share: colours, axes, labels, curves
"""

from rljax.report.figures.arms import draw_arm_attempts, draw_arm_curves, draw_arm_ends, draw_arm_grid
from rljax.report.figures.attempts import draw_attempts, shorten
from rljax.report.figures.behaviours import draw_behaviours
from rljax.report.figures.budgets import draw_budgets
from rljax.report.figures.curves import (
    draw_accuracy,
    draw_overlay,
    draw_response_length,
    draw_selection,
    draw_skills,
    draw_strategies,
)
from rljax.report.figures.drawing import spread_labels
from rljax.report.figures.evaluation import draw_evaluation
from rljax.report.figures.learning import draw_learning
from rljax.report.figures.models import Bar, draw_models
from rljax.report.figures.training import draw_other_measures, draw_training
