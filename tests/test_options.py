"""Declared settings: every value outside its range is one line that names the key, and every default is inside."""

import dataclasses
import math

import pytest

from configs import common
from rljax import options, rewards, tasks
from rljax.errors import UserError
from rljax.options import option
from rljax.policy_gradient import choices
from rljax.structs import KeyTag
from rljax.training import schema


@dataclasses.dataclass(frozen=True)
class Example:
    count: int = option(3, "a count", low=1, high=9)
    rate: float = option(0.5, "a rate", above=0.0, high=1.0)
    name: str = option("a", "a name", choices=("a", "b"))
    flag: bool = option(False, "a switch")
    sizes: tuple[int, ...] = option((), "sizes")
    scale: float | None = option(None, "a scale", kind=float, above=0.0)
    other: int = 7  # no config sets it


def test_defaults_and_objects_come_from_the_declaration():
    assert options.defaults(Example) == dict(count=3, rate=0.5, name="a", flag=False, sizes=(), scale=None)
    values = options.defaults(Example) | dict(count=4, sizes=[1, 2], scale=2, unknown_to_it=1)
    assert options.build(Example, values, "x.", other=8) == Example(4, 0.5, "a", False, (1, 2), 2, 8)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("count", 0, "x.count=0: must be at least 1 and at most 9"),
        ("count", 10, "x.count=10: must be at least 1"),
        ("count", 1.5, "must be a whole number"),
        ("count", True, "must be a whole number"),
        ("count", None, "must be a whole number"),
        ("rate", 0.0, "must be above 0 and at most 1"),
        ("rate", math.nan, "must be a finite number"),
        ("rate", math.inf, "must be a finite number"),
        ("rate", "high", "must be a number"),
        ("rate", True, "must be a number"),
        ("name", "c", "must be one of 'a', 'b'"),
        ("flag", 1, "must be True or False"),
        ("sizes", 3, "must be a tuple"),
        ("scale", -1.0, "must be above 0"),
    ],
)
def test_a_value_outside_its_range_is_one_line_that_names_the_key(name, value, said):
    with pytest.raises(UserError, match=said) as caught:
        options.build(Example, options.defaults(Example) | {name: value}, "x.")
    assert str(caught.value).startswith(f"x.{name}=") and "\n" not in str(caught.value)


def test_every_default_of_the_config_is_inside_its_own_range_and_has_a_help_text():
    schema.check_config(common.base())
    for key, (known, _) in schema.declarations().items():
        assert len(known.help) > 5 and schema.help_for(key).startswith(known.help), key


def test_a_key_that_nobody_declares_is_refused():
    config = common.base()
    with config.unlocked():
        config.rl.surprise = 1
    with pytest.raises(UserError, match="rl.surprise: there is no such setting"):
        schema.check_config(config)


@pytest.mark.parametrize("key", sorted(schema.declarations()))
def test_no_setting_takes_a_value_of_another_type_or_an_impossible_number(key):
    known, _ = schema.declarations()[key]
    bad = [object(), {"a": 1}]
    bad += {int: [1.5, "x", True], float: ["x", math.nan, math.inf], bool: ["x", 2], str: [3], tuple: [3]}[known.kind]
    bad += [known.low - 1] if known.low is not None else []
    bad += [known.above] if known.above is not None else []
    bad += [known.high + 1] if known.high is not None else []
    for value in bad:
        with pytest.raises(UserError, match=key.replace(".", r"\.")):
            options.check(known, value, key)


def test_no_two_uses_of_a_key_fold_in_the_same_number():
    assert len({int(tag) for tag in KeyTag}) == len(KeyTag.__members__)


def every_choice(
    a, *, n: int = 1, maybe: int | None = None, on: bool = False, x: float = 0.0, some: tuple[float, ...] = ()
):
    return a


@pytest.mark.parametrize(
    "text, said",
    [
        ("f(n=2.5)", "n=2.5.*must be a whole number"),
        ("f(n=2.0)", "must be a whole number"),
        ("f(n=True)", "must be a number, not True or False"),
        ("f(maybe=2.5)", "must be a whole number"),
        ("f(on=3)", "must be True or False"),
        ("f(x=False)", "must be a number, not True or False"),
        ("f(some=2.5)", "must be a tuple"),
    ],
)
def test_an_option_of_a_part_or_a_term_has_the_kind_that_its_function_declares(text, said):
    with pytest.raises(UserError, match=said):
        choices.parse(text, {"f": every_choice}, "rl.row.f")
    choices.parse("f(n=2, maybe=None, on=True, x=2, some=(1, 2.5))", {"f": every_choice}, "rl.row.f")


@pytest.mark.parametrize("text", ["repetition(n=0)", "repetition(n=2.5)", "length(per=0)", "overlong(share=2)"])
def test_an_option_of_a_reward_term_outside_its_range_is_refused(text):
    with pytest.raises(UserError, match="rl.reward: "):
        rewards.parse_reward(f"correct + {text}")


WORLDS = ("shop", "fruit", "cups", "countdown", "ring", "coins", "programs", "fruit_text", "questions")
NUMBERS = (bool, int, float)
OPTIONS = [
    (name, field)
    for name in WORLDS
    for field in dataclasses.fields(tasks.find_world(name).Options)
    if field.type in NUMBERS
]


@pytest.mark.parametrize("name, field", OPTIONS, ids=[f"{name}-{field.name}" for name, field in OPTIONS])
def test_no_world_takes_an_option_of_another_kind_or_an_impossible_size(name, field):
    bad: list = (
        ["x", None, math.nan, math.inf, -3, 10**13] + [2.5] * (field.type is int) + [True] * (field.type is not bool)
    )
    for value in bad:
        with pytest.raises(UserError, match=field.name) as caught:
            tasks.make_task(name, **{field.name: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, option, value",
    [
        *(("fruit_text", "level", value) for value in ("x" * 4000, "1e999*5", "nan*5", "0*5")),
        *(
            ("questions", "datasets", value)
            for value in ("0*gsm8k", "1e999*gsm8k", "nan*gsm8k", "-1*gsm8k", "x" * 4000)
        ),
        *((name, "stop_strings", ("x",) * 4000) for name in ("fruit_text", "questions")),
        *(("questions", option, 1.5) for option in ("min_pass_rate", "max_pass_rate")),
        ("questions", "curriculum_over", 0),
    ],
)
def test_an_impossible_text_or_share_of_a_world_is_refused_in_one_short_line(name, option, value):
    with pytest.raises(UserError) as caught:
        tasks.make_task(name, **{option: value})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
