"""A run's records and samples -> PNG files, in the manner of DeepSeek-R1-Zero's Figures 2 and 3 and of the lecture.

Every function is pure but for the file it writes. ``runs`` is a list of runs, one a seed; a run is the list of its
``metrics.jsonl`` records. One run is drawn with a band of 1.96 standard errors over questions where its records have
them; several as thin lines, their mean, and a 95% Student interval over seeds. A key that no record has is left out; a
figure that would be empty raises UserError. matplotlib is imported when something is drawn, not with this module.
"""

from rljax.report.figures.arms import arm_attempts, arm_curves, arm_ends, arm_grid
from rljax.report.figures.attempts import attempts, shorten
from rljax.report.figures.behaviours import behaviours
from rljax.report.figures.curves import accuracy, overlay, response_length, selection, skills, strategies
from rljax.report.figures.models import Bar, models
from rljax.report.figures.parts import across, interval, series, spread
from rljax.report.figures.protocol import evaluation
