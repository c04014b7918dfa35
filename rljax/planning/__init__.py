"""What a run would need, before there are devices to run it on.

abstract_run.py   a run without tokenizer, weights or devices    published_models.py  published architectures
lowering.py       the real functions, compiled on abstract arrays collectives.py       what their devices send each other
memory.py         bytes on each device, by phase                 static_memory.py     those known without compiling
operations.py     operations and bytes, counted                  roofline.py, chips.py  how long they take where
plan.py           all of it together                             suggestions.py       which settings would make it fit
table.py          as text
"""

from rljax.planning import table
from rljax.planning.abstract_run import resolve_abstract
from rljax.planning.chips import CHIPS, chip
from rljax.planning.plan import Plan, make_plan
from rljax.planning.published_models import SHAPES
from rljax.planning.suggestions import as_flags, largest_phase, search_settings

__all__ = [
    "CHIPS",
    "Plan",
    "SHAPES",
    "as_flags",
    "chip",
    "largest_phase",
    "make_plan",
    "resolve_abstract",
    "search_settings",
    "table",
]
