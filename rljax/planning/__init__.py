"""Planning: the memory, computation, communication and time that a run needs, computed without its devices.

abstract_run.py   a Run without tokenizer, weights or devices    published_models.py  configs of published models
lowering.py       compiles the programs on abstract arrays       collectives.py       parses their collectives from HLO
memory.py         bytes on each device, by phase                 static_memory.py     bytes that need no compiler
operations.py     counts FLOPs and bytes accessed                roofline.py, chips.py  seconds on a chip
plan.py           puts all of this into one Plan                 suggestions.py       searches settings that fit
table.py          formats a Plan as text or as JSON data
"""

from rljax.planning.abstract_run import resolve_abstract
from rljax.planning.chips import CHIPS, get_chip
from rljax.planning.plan import Plan, make_plan
from rljax.planning.published_models import PUBLISHED_MODELS
from rljax.planning.suggestions import format_flags, largest_phase, search_settings
from rljax.planning.table import format_memory, format_plan, plan_to_dict

__all__ = [
    "CHIPS",
    "PUBLISHED_MODELS",
    "Plan",
    "format_flags",
    "format_memory",
    "format_plan",
    "get_chip",
    "largest_phase",
    "make_plan",
    "plan_to_dict",
    "resolve_abstract",
    "search_settings",
]
