"""A playground over a loopback socket, with a policy of random weights in a world where half of what it says is right."""

import contextlib
import dataclasses
import json
from types import SimpleNamespace

import httpx2
import jax

from configs import shop
from rljax import transformer
from rljax.serving.policies import Policies, Source, make_policy
from rljax.serving.server import open_socket, serve
from rljax.serving.state import make_state
from rljax.training.run import resolve

NAME = "toy/rl@7"


def half_right(task):
    """The task with a verifier that half of all texts pass: those whose first word is a number."""
    first = lambda text: text.split(" ")[0]
    verify = lambda text, record: first(text).isdigit()
    describe = lambda text, record: dataclasses.replace(task.describe(text, record), answer=first(text) or None)
    problems = jax.jit(task.problems, static_argnums=2)  # as tasks of the device have it
    return dataclasses.replace(task, problems=problems, verify=verify, describe=describe, verify_on_device=None)


def make_source(tmp_path, steps=(7,)):
    """A run with checkpoints of these steps, whose parameters are random."""
    config = shop.get_config("short")
    config.workers = 0
    run = resolve(config)
    path = tmp_path / "toy"
    for step in steps:
        (path / "checkpoints" / "rl" / str(step)).mkdir(parents=True)
    return Source("toy", path, dataclasses.replace(run, task=half_right(run.task)))


def make_policies(source):
    policies = Policies([source])
    for seed, name in enumerate(policies.names()):
        policies.loaded[name] = make_policy(name, source, transformer.init(source.run.model, jax.random.key(3 + seed)))
    return policies


def write_records(source):
    """Records of a run that has come to step 9."""
    with (source.path / "metrics.jsonl").open("w") as f:
        for step in range(10):
            share = step / 10
            record = {"eval/pass@1": share, "eval/cons@16": share**0.5, "eval/response_length/mean": 15 + 4 * step}
            f.write(json.dumps({"stage": "rl", "step": step} | record) + "\n")


@contextlib.contextmanager
def playground(tmp_path, **settings):
    """(client, state) of a server that runs while the block does."""
    source = make_source(tmp_path)
    state = make_state(make_policies(source), **settings)
    with serve(state, open_socket("127.0.0.1", 0)) as address, httpx2.Client(base_url=address, timeout=300) as client:
        yield SimpleNamespace(client=client, state=state, source=source, address=address)


def ask(client, **fields):
    """All lines of a request for attempts."""
    with client.stream("POST", "/api/ask", json={"problem": 1, "attempts": 4, "max_tokens": 24} | fields) as answer:
        assert answer.status_code == 200, answer.read()
        return [json.loads(line) for line in answer.iter_lines()]


def tokens_of(lines, row):
    return [i for line in lines if line["type"] == "tokens" for r in line["rows"] if r["row"] == row for i in r["ids"]]
