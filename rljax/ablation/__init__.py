"""One question, several arms, several seeds: what was run, and what it says.

arms.py       an ablation as data: arms, what they change, what they start from
results.py    a run's folder -> one line; lines -> arrays by arm and seed
claims.py     a hypothesis, written so that it can be checked, and the sentence that says whether it held
draw.py       its figures
"""

from rljax.ablation.arms import Ablation, Run, check, finished, folder, load, runs_of
from rljax.ablation.claims import Judgement, judge, say, verdict
from rljax.ablation.draw import draw_figures
from rljax.ablation.results import Line, line_of, read, table, values, write
