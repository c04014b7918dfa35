"""What a run would need, before there are devices to run it on.

stand_in.py   settings without tokenizer, weights or devices         shapes.py       published architectures
programs.py   the real functions, compiled on abstract arrays       collectives.py  what their devices say to each other
memory.py     bytes on each device, by phase    kept.py  those known without compiling
work.py       operations and bytes, counted     roofline.py, chips.py  how long they take where
plan.py       all of it together                fit.py   which settings would make it fit
table.py      as text
"""

from rljax.planning import table
from rljax.planning.abstract_run import settle
from rljax.planning.chips import CHIPS, chip
from rljax.planning.plan import Plan, make
from rljax.planning.published_models import SHAPES
from rljax.planning.suggestions import pasted, search, worst
