"""Every key of a config with edge values: each is accepted or refused in one line, before anything is computed or held."""

import json
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from configs import common, shop
from rljax.errors import UserError
from rljax.training import schema
from rljax.training.config_files import override_config
from rljax.training.run import resolve

EDGES: dict[type, tuple] = {
    int: (-(10**13), -(2**31), -1, 0, 1, 3, 10**6, 10**9, 2**31 - 1, 10**13, float("inf"), float("nan"), 1.5, "", None),
    float: (-1.0, 0.0, 1e-300, 1.5, 1e30, 1e300, float("inf"), -float("inf"), float("nan"), "", None),
    str: (
        "",
        "x",
        "\0",
        "0*correct",
        "1e999*correct",
        "ppo_clip(low=1e999)",
        "(" * 5000,
        "x" * 100_000,
        "x" * 300,
        "x/" * 1500,
        "a\nb",
        5,
        None,
    ),
    tuple: (
        (),
        (0,),
        (-1,),
        ("x",),
        (1.5,),
        (10**9,),
        (10**13,),
        (None,),
        ("x" * 300,),
        tuple(range(100_000)),
        5,
        None,
    ),
    bool: (True, False, 2, "", None),
}
OTHER_WORDS = {"plugins": "plug-in", "weights": "folder"}  # what a message says in the place of the key's name
CPU_SECONDS, MEGABYTES = 2.0, 200  # of one value; building and checking a run takes .01 s and 5 MB


def with_value(key: str, value: Any) -> Any:
    """The config of the main job with one key changed to a value of any type."""
    config = shop.get_config()
    *groups, name = key.split(".")
    section: Any = config
    for group in groups:
        section = section[group]
    with config.unlocked(), section.ignore_type():
        section[name] = value
    return config


def fault_of(key: str, value: Any) -> str:
    """What is wrong with the way in which this value is accepted or refused; "" where nothing is."""
    try:
        resolve(with_value(key, value))
    except UserError as e:
        said, words = str(e), (key, key.rpartition(".")[0] or key, OTHER_WORDS.get(key, key))
        names_it = key.rpartition(".")[2] in said or any(word in said for word in words)
        return "" if names_it and "\n" not in said and len(said) < 400 else f"not one line with the key: {said[:200]!r}"
    except Exception as e:
        return f"{type(e).__name__}: {e}"[:200]
    return ""


def walk_all_keys() -> Iterator[str]:
    """Try every edge value of every key; yield a line for each that is not handled, or that costs too much."""
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def interrupt(*_: Any) -> None:
        raise TimeoutError(f"more than {CPU_SECONDS} s of CPU")

    signal.signal(signal.SIGPROF, interrupt)
    resolve(shop.get_config())
    for key, (known, _) in sorted(schema.declarations().items()):
        for value in EDGES[known.kind]:
            before = peak()
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            fault = fault_of(key, value)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if not fault and peak() - before > MEGABYTES:
                fault = f"{peak() - before:.0f} MB were held"
            if fault:
                yield f"{key}={value!r:.60}: {fault}"


@pytest.mark.exhaustive
def test_every_edge_value_of_every_key_is_accepted_or_refused_in_one_line_without_a_hang_or_large_memory():
    command = [sys.executable, "-m", "tests.test_config_values"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []


KEYS = sorted(schema.declarations())
ANYTHING = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=20),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=5), st.none()), max_size=4).map(tuple),
)


@hypothesis.settings(max_examples=300, deadline=None, database=None, derandomize=True)
@hypothesis.given(st.sampled_from(KEYS), ANYTHING)
def test_any_value_of_any_key_is_accepted_or_refused_in_one_line(key, value):
    try:
        with_value(key, value)
    except OverflowError:  # ml_collections makes a float of a whole number
        hypothesis.reject()
    assert fault_of(key, value) == ""


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("rl.group_size", 10**9, "rl.group_size=1000000000: must be at least 1 and at most 1,048,576"),
        ("rl.prompts", 10**9, "rl.prompts=1,000,000,000 x rl.group_size=16"),
        ("pretrain.length", 100_000, "pretrain.length=100000: a page must fit the model's window"),
        ("rl.max_new_tokens", 10**6, "rl.max_new_tokens=1000000: a prompt of 13 tokens"),
        ("rl.steps", 10**9, "rl.steps=1,000,000,000 x rl.prompts=16: 16,000,000,000 problems in the stage"),
        ("rl.optimizer.learning_rate", 1e300, "must be 1e-30 to 1e+30 in size"),
        ("rl.reward", "1e999*correct", "the weight of correct must be a finite number"),
        ("rl.reward", "0*correct", "the weight of correct must not be 0"),
        ("rl.row.kl", "k3(coef=1e999)", "coef=inf"),
        ("rl.widths", (0,), "rl.widths=(0,): each item must be at least 1"),
        ("selection.rules", ("x",), "selection.rules: 'x' is unknown"),
        ("workers", 10**6, "must be at least 0 and at most 1,024"),
    ],
)
def test_what_is_too_large_is_said_with_what_would_be_asked_for(key, value, said):
    with pytest.raises(UserError) as caught:
        resolve(with_value(key, value))
    assert said in str(caught.value)


def test_attention_scores_and_logits_that_no_device_can_hold_are_refused():
    config = shop.get_config()
    config.model.max_length = config.pretrain.length = 10**6
    with pytest.raises(UserError, match="attention scores: pretrain.micro_batch, 1,000,000 columns need 40,000 GB"):
        resolve(config)
    config.model.attention_chunk = 64
    resolve(config)


def main() -> None:
    """Walk within limits that end a hang or a large allocation, whatever the code does."""
    cpu, memory = 120, 8 << 30
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    warnings.simplefilter("ignore")
    start = time.process_time()
    faults = list(walk_all_keys())
    print(f"{time.process_time() - start:.1f} s of CPU")
    print(json.dumps(faults))


if __name__ == "__main__":
    main()


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda c: c.rl.update(dict(promts=3)), "rl.promts: there is no such setting; did you mean rl.prompts?"),
        (
            lambda c: c.rl.optimizer.update(dict(lr=1e-3)),
            "rl.optimizer.lr: there is no such setting; did you mean rl.optimizer.learning_rate?",
        ),
        (lambda c: c.update(dict(evl=dict(rows=3))), "evl.rows: there is no such setting; did you mean eval.rows?"),
        (lambda c: setattr(c.rl, "optimizer", dict(learning_rate=1e-3)), "rl.optimizer.name: this setting is missing"),
        (lambda c: c.rl.__delattr__("limit"), "rl.limit.[a-z_]+: this setting is missing"),
    ],
)
def test_a_config_in_python_with_a_key_too_much_or_too_few_is_one_line(change, said):
    config = common.base()
    with config.unlocked(), config.ignore_type():
        change(config)
    with pytest.raises(UserError, match=said.replace("?", "[?]")):
        schema.check_config(config)


@pytest.mark.parametrize(
    "change, said",
    [
        ("model.rope_scaling=('linear',)", "model: rope_scaling=.*after 'linear' come 1 values: factor"),
        ("model.rope_scaling=('linear','x')", "factor must be a number"),
        ("model.rope_scaling=('linear',0)", "factor must be above 0"),
        ("model.rope_scaling=('yarn',1e999,32.0,1.0,4,1.0,True)", "factor must be a finite number"),
        ("model.rope_scaling=('yarn',4.0,32.0,1.0,0,1.0,True)", "original length must be above 0"),
        ("model.rope_scaling=('yarn',4.0,32.0,1.0,4,1.0,2)", "whether to round must be True or False"),
        ("model.rope_scaling=('llama3',8.0,4.0,1.0,8192)", "low frequency must be below the high one"),
        ("model.rope_scaling=((1,),)", r"rope_scaling=\(1,\) is unknown"),
        ("rl.row.surrogate=ppo_clip(low=-1)", "ppo_clip.low=-1.: must be at least 0"),
        ("rl.row.surrogate=ppo_clip(dual_clip=0.5)", "must be above 1"),
        ("rl.row.correction=token_truncate(hi=-2)", "token_truncate.hi=-2.: must be above 0"),
        ("rl.row.tokens=top_entropy(share=1.5)", "must be at least 0 and at most 1"),
        ("rl.start=\udcff", "rl.start='.udcff': must be text that UTF-8 can hold"),
    ],
)
def test_numbers_inside_a_tuple_or_a_choice_have_ranges_and_text_can_be_written(change, said):
    with pytest.raises(UserError, match=said):
        resolve(override_config(shop.get_config("short"), [change]))
