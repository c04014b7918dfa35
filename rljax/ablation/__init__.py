"""One question, several arms, several seeds: what was run, and what it says.

arms.py       an ablation as data: arms, what they change, what they start from
results.py    a run's folder -> one line; lines -> arrays by arm and seed
claims.py     a hypothesis, written so that it can be checked, and the sentence that says whether it held
draw.py       its figures                    ablation_report.py  tables and report.html     recipe_report.py  R1's recipe
scheduler.py  runs as processes (process_pool.py), or many as one program (vmapped.py, vmap_groups.py)
"""

from rljax.ablation.ablation_report import arms_table, markdown_table, write_report
from rljax.ablation.arms import Ablation, Run, check, finished, folder, load, runs_of
from rljax.ablation.claims import Judgement, judge, say, verdict
from rljax.ablation.draw import draw_figures
from rljax.ablation.results import Line, line_of, read, table, values, write
