"""A run on one page: report.html, with nothing outside it. Pictures are data URIs, style is inline, every text is escaped.

The page is a function of its arguments and of the pictures' bytes: no clock, no machine, no network.
"""

from rljax.report.attempts import example, improved, parts, side_by_side, typical
from rljax.report.page import write
