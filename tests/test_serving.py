"""The playground's own addresses: attempts, groups, steps, limits, and who may ask."""

import contextlib
import json
import math
import re
import threading

import httpx2
import jax
import numpy as np
import pytest

from rljax import sampler
from rljax.serving import learning
from rljax.serving.asking import warm_up
from rljax.serving.engine import Engine
from rljax.serving.groups import find_algorithm, group_advantages, usable_algorithms
from rljax.serving.shapes import choose_shape
from rljax.text import pad_batch
from tests import served
from tests.served import NAME, ask, tokens_of

JSON = {"content-type": "application/json"}
FORBIDDEN = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "eval(",
    "new Function",
    "http:",
    "https:",
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with served.playground(tmp_path_factory.mktemp("served")) as toy:
        yield toy


def test_a_request_is_answered_line_by_line(toy):
    lines = ask(toy.client)
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "start" and kinds[-1] == "group" and kinds.count("verdict") == 4 and kinds.count("tokens") > 1
    assert lines[0]["model"] == NAME and lines[0]["known"]
    text = "".join(lines[0]["pieces"])
    assert text.startswith("<bos>") and text.endswith("?")
    for line in lines:
        for row in line.get("rows", ()):
            sizes = {len(row[name]) for name in ("ids", "pieces", "logprobs", "tops")}
            assert len(sizes) == 1
            for top in row["tops"]:
                assert len(top) == 5 and all(x <= 0 for _, x in top)


def test_the_tokens_are_those_that_the_sampler_draws_with_the_same_seed(toy):
    lines = ask(toy.client, attempts=3, seed=11, temperature=0.8)
    run, prompt = toy.source.run, lines[0]["ids"]
    shape = choose_shape(3, len(prompt), 24, run.sampler_model.max_length)
    ids, mask = pad_batch([prompt], shape.prompt, 0, left=True)
    params = toy.state.policies.load(NAME).params
    settings = dict(group_size=shape.rows, max_new_tokens=shape.response, limit=24, temperature=0.8)
    settings |= dict(stop_ids=run.task.tokenizer.stop_ids)
    out = sampler.sample(params, run.sampler_model, ids, mask, jax.random.key(11), **settings)
    for row in range(3):
        assert tokens_of(lines, row) == np.asarray(out.response)[row][np.asarray(out.mask)[row]].tolist()


def test_the_same_seed_gives_the_same_attempts_and_another_one_others(toy):
    first, again, other = (ask(toy.client, seed=seed) for seed in (5, 5, 6))
    texts = lambda lines: [tokens_of(lines, row) for row in range(4)]
    assert texts(first) == texts(again) != texts(other)


def test_every_attempt_has_a_verdict_with_its_reason(toy):
    lines = ask(toy.client, attempts=8, seed=1)
    verdicts = [line for line in lines if line["type"] == "verdict"]
    assert sorted(v["row"] for v in verdicts) == list(range(8))
    summary = lines[-1]["summary"]
    assert {v["correct"] for v in verdicts} == {0.0, 1.0}
    assert summary["right"] == sum(v["correct"] for v in verdicts) == 8 * summary["pass@1"]
    assert summary["pass@8"] == 1.0 and 0 <= summary["cons@8"] <= 1
    assert all(v["why"].startswith(("cut off", "answers", "no final answer")) for v in verdicts)


def test_a_question_of_a_persons_own_is_put_in_the_words_of_the_task(toy):
    lines = ask(toy.client, problem=None, prompt="Ben pays 9 for two of 7 6 10 1 8?", form="question", attempts=1)
    assert "".join(lines[0]["pieces"]) == "<bos> Ben pays 9 for two of 7 6 10 1 8?"
    assert lines[0]["known"]


def test_an_answer_that_a_person_gives_is_what_is_right(toy):
    lines = ask(toy.client, problem=None, prompt="Ben pays", answer="7", attempts=2)
    assert not lines[0]["known"]
    assert all(v["correct"] in (0.0, 1.0) for v in lines if v["type"] == "verdict")
    lines = ask(toy.client, problem=None, prompt="Ben pays", attempts=2)
    assert all(v["correct"] is None for v in lines if v["type"] == "verdict")
    assert lines[-1]["summary"]["unknown"] == 2 and "pass@1" not in lines[-1]["summary"]


def test_a_step_makes_right_attempts_likelier_and_a_second_one_goes_on(toy):
    lines = ask(toy.client, attempts=8, seed=1)
    group, correct = lines[-1]["group"], {v["row"]: v["correct"] for v in lines if v["type"] == "verdict"}
    advantages = toy.client.post("/api/advantages", json={"group": group, "algorithm": "grpo"}).json()["advantages"]
    assert all((a > 0) == (correct[n] > 0) for n, a in enumerate(advantages))
    step = lambda **more: toy.client.post("/api/step", json={"group": group, "algorithm": "grpo"} | more).json()
    first = step(rate=1e-3)
    mean = lambda answer, kind: np.mean(
        [b - a for n, (a, b) in enumerate(zip(answer["before"], answer["after"], strict=True)) if correct[n] == kind]
    )
    assert first["steps"] == 1 and first["copy"].startswith(f"{NAME}~")
    assert mean(first, 1.0) > 0 > mean(first, 0.0)
    assert "ight attempts became" in first["said"] and "likelier" in first["said"]
    second = step(rate=1e-3, model=first["copy"])
    assert second["steps"] == 2 and second["copy"] == first["copy"]
    np.testing.assert_allclose(second["before"], first["after"], atol=1e-3)
    assert mean(second, 1.0) > 0
    again = ask(toy.client, attempts=8, seed=1, model=first["copy"])
    assert again[0]["model"] == first["copy"] and again[-1]["summary"]["attempts"] == 8
    unchanged = ask(toy.client, attempts=8, seed=1)
    assert [tokens_of(unchanged, n) for n in range(8)] == [tokens_of(lines, n) for n in range(8)]
    assert toy.client.post("/api/reset", json={"model": first["copy"]}).json() == {"dropped": True}
    assert toy.client.post("/api/ask", json={"problem": 1, "model": first["copy"]}).status_code == 404


def test_the_log_probabilities_before_a_step_are_those_of_the_sampler(toy):
    lines = ask(toy.client, attempts=4, seed=2, temperature=0.7)
    group = toy.state.groups.find(lines[-1]["group"])
    answer = toy.client.post("/api/step", json={"group": lines[-1]["group"], "algorithm": "rloo", "rate": 0.0}).json()
    np.testing.assert_allclose(answer["before"], [sum(row) for row in group.logprobs], atol=1e-3)
    np.testing.assert_allclose(answer["after"], answer["before"], atol=1e-5)


def test_the_page_comes_with_headers_that_forbid_everything_from_elsewhere(toy):
    page = toy.client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/app.py",
        "/static/index.html",
        "/..%2fapp.py",
        "//etc/passwd",
        "/api/runs/..%2f..%2f",
    ],
)
def test_no_address_leads_to_a_file_outside_the_page(toy, path):
    answer = toy.client.get(toy.address.rstrip("/") + path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attempts": 65}, "attempts: 65 must be from 1 to 64"),
        ({"attempts": 1.5}, "attempts: must be a whole number"),
        ({"attempts": True}, "attempts: must be a whole number"),
        ({"temperature": -1}, "temperature: -1 must be from 0 to 10"),
        ({"temperature": "hot"}, "temperature: must be a number"),
        ({"top_p": 0}, "top_p: 0 must be"),
        ({"max_tokens": 192}, "max_tokens: 192 must be from 1 to 191"),
        ({"max_tokens": 190}, "the policy's window has 192"),
        ({"seed": -1}, "seed: -1 must be"),
        ({"problem": None}, "prompt: write a prompt"),
        ({"problem": None, "prompt": "Ben 99"}, "prompt: text: '99' is not in this task's vocabulary"),
        ({"problem": None, "prompt": "Ben " * 200}, "the policy's window has 192"),
        ({"problem": None, "prompt": "x" * 100_001}, "prompt: has 100001 characters"),
        ({"form": "shout"}, "form: choose from"),
        ({"stop": ["nonsense"]}, "stop: "),
        ({"stop": [""]}, "stop: must be a list of texts"),
        ({"best_of": 3}, "best_of: unknown field"),
        ({"model": "toy/rl@8"}, "there is no policy 'toy/rl@8'"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_in_one_line(toy, fields, said):
    answer = toy.client.post("/api/ask", json={"problem": 1} | fields)
    assert answer.status_code == (404 if "no policy" in said else 400)
    assert said in answer.json()["error"] and "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b'{"temperature": NaN}', JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b"\xff", JSON, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b'{"prompt": "' + b"x" * (1 << 20) + b'"}', JSON, 413),
        (b"{}", JSON | {"origin": "http://elsewhere.example"}, 403),
        (b"{}", JSON | {"host": "elsewhere.example"}, 421),
    ],
)
def test_a_malformed_request_costs_one_line(toy, body, headers, status):
    answer = toy.client.post("/api/ask", content=body, headers=headers)
    assert answer.status_code == status and set(answer.json()) == {"error"}


def test_text_that_looks_like_html_comes_back_as_json_text(toy):
    answer = toy.client.post("/api/ask", json={"problem": None, "prompt": "<script>alert(1)</script>"})
    assert answer.headers["content-type"] == "application/json" and answer.status_code == 400
    answer = toy.client.get("/<script>alert(1)</script>")
    assert answer.headers["content-type"] == "application/json"


def test_the_page_builds_no_html_from_text(toy):
    page = toy.client.get("/").text
    scripts = re.findall(r'(?:src|href)="(/[\w.-]+\.(?:js|css))"', page)
    assert "/main.js" in scripts and "<script>" not in page and "style=" not in page and "onclick" not in page
    queue, seen = list(scripts), {}
    while queue:
        name = queue.pop()
        answer = toy.client.get(name)
        assert answer.status_code == 200, name
        seen[name] = answer.text
        queue += [f"/{x}" for x in re.findall(r'from "\./([\w.-]+)"', answer.text) if f"/{x}" not in seen]
    for name, code in seen.items():
        code = code.replace("http://www.w3.org/2000/svg", "")
        for word in FORBIDDEN:
            assert word not in code, f"{name}: {word}"


def test_a_client_that_leaves_frees_the_device_at_its_next_turn(toy):
    with toy.client.stream("POST", "/api/ask", json={"problem": 1, "attempts": 64, "max_tokens": 150}) as answer:
        next(answer.iter_lines())
    assert toy.state.engine.wait_until_idle(60)
    assert toy.state.engine.count() == {"running": 0, "preparing": 0, "waiting": 0}


def test_two_clients_are_served_in_turns(toy):
    order, ready = [], threading.Barrier(2)

    def follow(name):
        body = {"problem": 1, "attempts": 8, "max_tokens": 150, "seed": ord(name)}
        with httpx2.Client(base_url=toy.address, timeout=300) as client:
            ready.wait(30)
            with client.stream("POST", "/api/ask", json=body) as answer:
                order.extend(name for line in answer.iter_lines() if json.loads(line)["type"] == "tokens")

    threads = [threading.Thread(target=follow, args=(name,)) for name in "ab"]
    [t.start() for t in threads]
    [t.join(120) for t in threads]
    text = "".join(order)
    assert "a" in text.strip("b") and "b" in text.strip("a"), "neither waits for the end of the other"


@contextlib.contextmanager
def in_background(call):
    """Call in a thread while the block runs; yields the list that its result comes into."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    try:
        yield found
    finally:
        thread.join(300)


def test_others_are_served_while_a_program_is_compiled(toy, monkeypatch):
    ask(toy.client, attempts=4)
    gate, began, compile = threading.Event(), threading.Event(), toy.state.programs.compile
    slow = lambda *how: (began.set(), gate.wait(300), compile(*how))[-1]
    monkeypatch.setattr(toy.state.programs, "compile", slow)
    with in_background(lambda: ask(toy.client, attempts=32)) as found:
        assert began.wait(60)
        assert ask(toy.client, attempts=4)[-1]["type"] == "group" and not found
        assert toy.client.get("/api/status").json()["device"] == {"running": 0, "preparing": 1, "waiting": 0}
        assert toy.client.post("/api/problem", json={"problem": 3}).status_code == 200
        gate.set()
    assert found[0][-1]["summary"]["attempts"] == 32


def test_others_are_served_while_a_step_is_taken(toy, monkeypatch):
    group = ask(toy.client, attempts=4, seed=2)[-1]["group"]
    gate, began, describe = threading.Event(), threading.Event(), learning.describe_step
    monkeypatch.setattr(learning, "describe_step", lambda *how: (began.set(), gate.wait(300), describe(*how))[-1])
    step = lambda: toy.client.post("/api/step", json={"group": group, "algorithm": "rloo", "rate": 1e-4}).json()
    with in_background(step) as found:
        assert began.wait(300)
        assert ask(toy.client, attempts=4)[-1]["type"] == "group" and not found
        gate.set()
    assert found[0]["steps"] == 1


def test_two_steps_in_one_copy_at_once_are_both_taken(toy):
    group = ask(toy.client, attempts=4, seed=2)[-1]["group"]
    step = lambda **more: toy.client.post(
        "/api/step", json={"group": group, "algorithm": "rloo", "rate": 1e-4} | more
    ).json()
    copy = step()["copy"]
    with in_background(lambda: step(model=copy)) as other:
        here = step(model=copy)
    assert sorted((here["steps"], other[0]["steps"])) == [2, 3]


def test_asking_again_compiles_nothing(toy, caplog):
    ask(toy.client, attempts=4)
    jax.config.update("jax_log_compiles", True)
    try:
        for n in range(3):
            ask(toy.client, attempts=3, seed=n, problem=n, temperature=1 + n)
            assert not [r for r in caplog.records if "Compiling" in r.getMessage()]
        ask(toy.client, attempts=4, max_tokens=40)
        assert [r for r in caplog.records if "Compiling" in r.getMessage()], "a new size is seen here"
    finally:
        jax.config.update("jax_log_compiles", False)


def test_what_the_page_asks_first_is_compiled_when_the_server_starts(tmp_path):
    with served.playground(tmp_path) as toy:
        warm_up(toy.state)
        assert toy.state.engine.wait_until_idle(300)
        count = len(toy.state.programs.kept)
        ask(toy.client, problem=5, attempts=8, max_tokens=toy.source.run.rl.sampling.max_new_tokens)
        assert len(toy.state.programs.kept) == count > 4


def test_more_requests_than_fit_are_told_to_come_back(tmp_path):
    engine = Engine(running=1, waiting=1)
    gate, began = threading.Event(), threading.Event()
    with served.playground(tmp_path, engine=engine) as toy:

        def hold():
            began.set()
            gate.wait()
            yield None

        engine.submit(hold(), lambda told: None)
        assert began.wait(60)
        engine.submit(hold(), lambda told: None)
        answer = toy.client.post("/api/ask", json={"problem": 1})
        assert (
            answer.status_code == 503 and "wait already" in answer.json()["error"] and "retry-after" in answer.headers
        )
        gate.set()
        assert len(ask(toy.client)) > 4


def test_twenty_clients_are_all_served(toy):
    done = []

    def one(seed):
        with httpx2.Client(base_url=toy.address, timeout=300) as client:
            done.append(ask(client, seed=seed, attempts=4)[-1]["type"])

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(20)]
    [t.start() for t in threads]
    [t.join(300) for t in threads]
    assert done == ["group"] * 20


def test_status_says_what_can_be_asked(toy):
    found = toy.client.get("/api/status").json()
    assert found["default"] == NAME and "grpo" in found["algorithms"] and "vapo" not in found["algorithms"]
    (source,) = found["sources"]
    assert source["policies"] == [NAME] and source["task"] == "shop" and not source["finished"]
    assert found["training"] is None


def test_the_records_of_a_run_are_read_from_where_the_page_was(toy):
    lines = [{"stage": "rl", "step": n, "eval/pass@1": n / 10} for n in range(3)] + [
        {"stage": "rl", "step": 3, "train/loss": math.nan}
    ]
    path = toy.source.path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "rl", "st')
    first = toy.client.get("/api/runs/toy").json()
    assert first["next"] == 4 and first["progress"] == {"rl": 3} and first["records"][3]["train/loss"] is None
    later = toy.client.get("/api/runs/toy?after=2").json()
    assert [r["step"] for r in later["records"]] == [2, 3] and not later["restart"]
    assert toy.client.get("/api/runs/toy?after=9").json()["restart"]
    assert toy.client.get("/api/runs/other").status_code == 404
    assert toy.client.get("/api/runs/toy?after=x").status_code == 400


def test_every_algorithm_that_is_offered_has_an_advantage_for_each_attempt_of_a_group():
    assert {"grpo", "dr_grpo"} <= set(usable_algorithms()) and "on_policy_distillation" not in usable_algorithms()
    for name in usable_algorithms():
        advantages = group_advantages(find_algorithm(name), [1.0, 0.0, 0.0, 1.0], [[5, 6], [7], [8, 9, 9], [5]])
        assert len(advantages) == 4 and np.isfinite(advantages).all(), name
