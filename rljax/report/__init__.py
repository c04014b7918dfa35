"""report.html: a run on one page that needs no other file. Figures are data URIs, CSS is inline, every text is escaped.

The page depends on its arguments and on the figures alone. It needs no clock, no device and no network.

measures.py        the table of metrics: key, label, unit, which way is better. A new metric is a row here
records.py         records of metrics.jsonl -> arrays
run_report.py      ``write_report``: the figures, texts and tables of one RL run
texts.py           its captions and headline numbers
tables.py          its tables
aha.py             its first aha
attempts.py        attempts as HTML
page.py            the page, also for ablations and recipes
style.py           its CSS
terminal.py        attempts on the terminal
r1_zero_curves.py  the published curves of DeepSeek-R1-Zero
figures/           the figures
"""

from rljax.report.attempts import (
    median_attempt,
    rank_by_improvement,
    render_example,
    render_models,
    split_answer,
    split_examples,
)
from rljax.report.page import write_page
from rljax.report.records import group_by_problem
from rljax.report.run_report import write_report
