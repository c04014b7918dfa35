"""A run on one page: report.html, with nothing outside it. Pictures are data URIs, style is inline, every text is escaped.

The page is a function of its arguments and of the pictures' bytes: no clock, no machine, no network.

measures.py    the one table of measures: key, label, unit, which way is better. A new metric is a row here
records.py     records of metrics.jsonl -> arrays
run_report.py  ``write_report``: the figures, texts and tables of one RL run
texts.py       its sentences and headline numbers, derived from the run; tables.py  its tables; aha.py  its first aha
attempts.py    attempts as HTML; page.py  the page itself, also for ablations and recipes; style.py  its CSS
figures/       the pictures
"""

from rljax.report.attempts import rank_by_improvement, render_example, render_models, split_answer, typical_attempt
from rljax.report.page import write_page
from rljax.report.records import group_by_problem
from rljax.report.run_report import write_report
