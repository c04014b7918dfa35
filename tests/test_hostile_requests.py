"""Whatever is sent to the playground, it answers with one line and a status of the 400s, and goes on."""

import itertools
import json
import math
import socket

import pytest

from rljax.serving import http
from rljax.serving.groups import find_algorithm, group_advantages, usable_algorithms
from tests import served
from tests.served import NAME, ask

POSTS = (
    "/api/ask",
    "/api/problem",
    "/api/advantages",
    "/api/step",
    "/api/reset",
    "/v1/completions",
    "/v1/chat/completions",
)
GETS = ("/", "/main.js", "/api/status", "/api/runs/toy", "/v1/models", f"/v1/models/{NAME}")
FIELDS = {
    "/api/ask": "model problem prompt form answer attempts temperature top_p max_tokens seed stop",
    "/api/problem": "model problem",
    "/api/advantages": "group algorithm",
    "/api/step": "group algorithm model rate",
    "/api/reset": "model",
    "/v1/completions": "model prompt max_tokens temperature top_p n stream stream_options stop seed echo logprobs best_of suffix "
    "logit_bias presence_penalty tools response_format",
    "/v1/chat/completions": "model messages max_tokens max_completion_tokens temperature top_p n stream stream_options stop seed "
    "logprobs top_logprobs tools tool_choice response_format",
}
PROMPT = "Ben pays 9 for two of 7 6 10 1 8?"
USUAL = {
    "/api/ask": {"problem": 1, "attempts": 1, "max_tokens": 2},
    "/api/problem": {"problem": 1},
    "/api/advantages": {"group": "1"},
    "/api/step": {"group": "1", "rate": 0.0},
    "/api/reset": {"model": "toy/rl@7~00"},
    "/v1/completions": {"model": "toy", "prompt": PROMPT, "max_tokens": 2},
    "/v1/chat/completions": {"model": "toy", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2},
}
DEEP = json.loads("[" * 400 + "]" * 400)
VALUES = (
    *(True, 0, -1, 1.5, 3, 10**400, -(10**30), 1e308, 5e-324, 1 << 63),
    *("", "\x00", "x" * 3000, "\n\n", "é\u202e", "toy/../toy", "<b>", "99"),
    *([], [""], ["a"] * 40, [[]], [[1, 2]], [1 << 70], [-1], [True], [None], [{}], [["a"]], DEEP),
    *({}, {"role": "user"}, {"a": {"b": []}}),
    *(
        [{"role": "user", "content": []}],
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": [{"type": "image"}]}],
    ),
)
TEXTS = (
    *(
        '{"%s": NaN}',
        '{"%s": Infinity}',
        '{"%s": -Infinity}',
        '{"%s": 1e999}',
        '{"%s": "\\ud800"}',
        '{"%s": ["\\udfff"]}',
    ),
    *(
        '{"%s": 1' + "0" * 5000 + "}",
        '{"%s": 01}',
        '{"%s": }',
        '{"%s"}',
        '{"%s": "',
        "{'%s': 1}",
        '{"%s": 1}}',
        '\ufeff{"%s": 1}',
    ),
)
BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b"{}" * 2,
    b"\x00",
    b'{"\\ud800": 1}',
)
BODIES += (b'{"a\\nb": 1}', b'{"' + b"x" * 9000 + b'": 1}', b'{"": 1}')
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with served.playground(tmp_path_factory.mktemp("served")) as toy:
        ask(toy.client, attempts=2, max_tokens=8)
        yield toy


def is_one_line(answer):
    """Whether an answer is a refusal in one short line, in the shape of its address."""
    error = answer.json()["error"]
    said = error["message"] if isinstance(error, dict) else error
    assert isinstance(said, str) and said and "\n" not in said and "\r" not in said and len(said) < 700, said
    return True


def check(answer):
    """It was answered, or refused in one line; it has not failed."""
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
        assert is_one_line(answer)
    return answer.status_code


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", POSTS)
def test_no_value_of_any_field_makes_a_request_fail(toy, path, capfd):
    seen = set()
    for field, value in itertools.product((*FIELDS[path].split(), "unknown", "x" * 300, "a\nb"), VALUES):
        seen.add(check(toy.client.post(path, json=USUAL[path] | {field: value})))
    assert 400 in seen and "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("path", POSTS)
def test_no_text_in_place_of_a_value_makes_a_request_fail(toy, path, capfd):
    for field, text in itertools.product(FIELDS[path].split(), TEXTS):
        body = (text % field).encode("utf-8", "surrogatepass")
        assert check(toy.client.post(path, content=body, headers=JSON)) in (400, 404), body[:80]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_no_object_is_refused(toy, path):
    for body in BODIES:
        assert check(toy.client.post(path, content=body, headers=JSON)) == 400, body[:40]
    assert check(toy.client.post(path, content=b"{}", headers={"content-type": "text/html"})) == 415
    assert check(toy.client.post(path, content=b"{}")) == 415
    assert check(toy.client.post(path, content=b'{"model": "' + b"x" * (1 << 20) + b'"}', headers=JSON)) == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "get"])
def test_other_methods_are_refused(toy, method):
    for path in (*POSTS, *GETS):
        answer = toy.client.request(method, path) if method != "get" else toy.client.get(POSTS[0])
        assert answer.status_code in (404, 405) and is_one_line(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/%00",
        "/%0a%0d",
        "/é",
        "/%ff%fe",
        "/" + "a" * 8000,
        "/api/",
        "/api/runs/",
        "/api/runs/%0a",
        "/v1",
        "/v1/",
        "/v1/models/",
        "/v1/x",
    ]
    + [
        "/v1/models/%ff",
        "/v1/models/" + "m" * 5000,
        "/api/runs/toy?after=-1",
        "/api/runs/toy?after=1e9",
        "/api/runs/toy?after=" + "9" * 50,
    ],
)
def test_unknown_addresses_are_refused(toy, path):
    answer = toy.client.get(path)
    assert answer.status_code in (400, 404) and is_one_line(answer)


def send(toy, raw, end=False):
    """The first line of the answer to these bytes, b"" where the server closes the connection."""
    with socket.create_connection(("127.0.0.1", int(toy.address.rstrip("/").rpartition(":")[2])), timeout=60) as sock:
        sock.sendall(raw)
        if end:
            sock.shutdown(socket.SHUT_WR)
        return sock.makefile("rb").readline()


HEAD = b"POST /api/ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"Content-Length: -1\r\n\r\n{}",
        HEAD + b"Content-Length: x\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        HEAD + b"Bad Header\r\n\r\n",
        b"POST /api/ask HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /api/status HTTP/x\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300 + b"\r\n\r\n",
        b"GET\r\n\r\n",
    ],
    ids=[
        "negative",
        "no number",
        "two lengths",
        "endless",
        "coding",
        "chunk",
        "long head",
        "no colon",
        "no host",
        "version",
        "tls",
        "no path",
    ],
)
def test_what_is_no_http_costs_nothing(toy, raw):
    line = send(toy, raw, end=True)
    assert line == b"" or line.split()[1].startswith(b"4"), line
    assert toy.client.get("/api/status").status_code == 200


def test_a_body_that_never_comes_is_given_up(toy, monkeypatch):
    monkeypatch.setattr(http, "BODY_SECONDS", 0.05)
    assert send(toy, HEAD + b"Content-Length: 20\r\n\r\n{").split()[1] == b"408"


def test_a_client_that_leaves_within_its_body_costs_nothing(toy, capfd):
    send(toy, HEAD + b"Content-Length: 20\r\n\r\n{", end=True)
    assert check(toy.client.post("/api/problem", json={"problem": 1})) == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_temperature_that_is_hardly_above_zero_takes_the_likeliest_tokens(toy):
    tokens = [served.tokens_of(ask(toy.client, attempts=1, temperature=t), 0) for t in (0, 1e-4, 1e-300)]
    assert tokens[0] == tokens[1] == tokens[2]


def test_a_step_that_breaks_the_policy_is_refused_and_not_kept(toy, monkeypatch):
    group, use = ask(toy.client, attempts=4, seed=1)[-1]["group"], toy.state.programs.use
    copies = list(toy.state.policies.copies)  # of the requests before

    def use_broken(*args, **static):
        program, calls = (yield from use(*args, **static)), []
        return lambda *given: program(*given) if calls.append(given) or len(calls) == 1 else program(*given) * math.nan

    monkeypatch.setattr(toy.state.programs, "use", use_broken)
    answer = toy.client.post("/api/step", json={"group": group, "algorithm": "rloo", "rate": 0.5})
    assert answer.status_code == 400 and "no finite probabilities" in answer.json()["error"]
    assert list(toy.state.policies.copies) == copies


@pytest.mark.parametrize("correct", [[1.0] * 4, [0.0] * 4, [float("nan")] * 4, [1.0, 0.0, float("nan"), 0.0]])
def test_every_algorithm_says_something_of_every_group(correct):
    for name in usable_algorithms():
        advantages = group_advantages(find_algorithm(name), correct, [[5, 6], [7], [8, 9, 9], []])
        json.dumps(advantages, allow_nan=False)
