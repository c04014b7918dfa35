"""How quickly a playground answers: its first token, its streams, other requests meanwhile, many clients, memory, a gradient step.

    rljax playground runs/shop --port 8765                                 # in another terminal, just started
    python -m benchmarks.playground http://127.0.0.1:8765 [--pid PID] [--attempts 8] [--many 64] [--clients 20] [--tokens 0]

One JSON line a measure; times are milliseconds of wall clock, as a client sees them. ``--pid`` is the server's process, whose memory
is told. ``new_program`` asks for shapes that were not asked before: it is right once for each start of the server.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROUTES = ("/", "/api/status", "/v1/models")


class Server:
    """A playground, and how much is asked of it."""

    def __init__(self, address: str, pid: int):
        where = urllib.parse.urlsplit(address)
        self.host, self.port, self.pid = where.hostname or "127.0.0.1", where.port or 80, pid

    def open(self, method: str, path: str, fields: Any = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=900)
        body = None if fields is None else json.dumps(fields)
        connection.request(method, path, body, {} if body is None else {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {answer.read()[:300]!r}")
        return answer

    def get(self, path: str) -> bytes:
        return self.open("GET", path).read()

    def post(self, path: str, fields: Any) -> Any:
        return json.loads(self.open("POST", path, fields).read())

    def memory(self) -> float | None:
        """Resident memory of the server, MB."""
        if not self.pid:
            return None
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)


class Stream:
    """One request for attempts: when its lines came."""

    def __init__(self, server: Server, fields: dict[str, Any]):
        self.start, self.at, self.tokens, self.last = time.perf_counter(), [], 0, {}
        answer = server.open("POST", "/api/ask", fields)
        while line := answer.readline():
            told = json.loads(line)
            if told["type"] == "tokens":
                self.at.append(time.perf_counter())
                self.tokens += sum(len(row["ids"]) for row in told["rows"])
            self.last = told
        if self.last["type"] != "group":
            raise SystemExit(f"a request for attempts ended with {self.last}")

    @property
    def first(self) -> float:
        """Milliseconds to the first token."""
        return 1e3 * (self.at[0] - self.start)

    @property
    def gaps(self) -> list[float]:
        """Milliseconds between two events with tokens."""
        return [1e3 * (b - a) for a, b in zip(self.at, self.at[1:], strict=False)]


def spread(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and worst of some times."""
    ordered = sorted(values) or [0.0]
    near = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"median": round(statistics.median(ordered), 1), "p95": round(near, 1), "worst": round(ordered[-1], 1)}


@contextlib.contextmanager
def ask_others(server: Server, routes: tuple[str, ...] = ROUTES, every: float = 0.1) -> Iterator[list[float]]:
    """Ask other addresses while the block runs; the list fills with the milliseconds of each."""
    seen, ended = [], threading.Event()

    def ask() -> None:
        while not ended.wait(every):
            for path in routes:
                start = time.perf_counter()
                server.get(path)
                seen.append(1e3 * (time.perf_counter() - start))
            start = time.perf_counter()
            server.post("/api/problem", {"problem": len(seen)})
            seen.append(1e3 * (time.perf_counter() - start))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def measure_first_token(server: Server, how: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Time to the first token of a request whose programs exist."""
    Stream(server, how)
    return {"ms": spread([Stream(server, how | {"seed": n}).first for n in range(repeats)]), "requests": repeats}


def measure_stream(server: Server, how: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Gaps between the events of a stream, and other requests meanwhile."""
    Stream(server, how)
    with ask_others(server) as others:
        streams = [Stream(server, how | {"seed": n}) for n in range(repeats)]
    seconds = sum(s.at[-1] - s.start for s in streams)
    gaps = [gap for s in streams for gap in s.gaps]
    out = {"gap_ms": spread(gaps), "events": len(gaps) + repeats}
    return out | {"tokens_per_second": round(sum(s.tokens for s in streams) / seconds), "others_ms": spread(others)}


def measure_clients(server: Server, how: dict[str, Any], clients: int, rounds: int) -> dict[str, Any]:
    """Many clients at once, some times: whether all are served, and what memory the server has then."""
    Stream(server, how)
    memory, seconds, firsts, served = [server.memory()], [], [], []
    for turn in range(rounds):
        start = time.perf_counter()

        def ask(n: int, turn: int = turn) -> None:
            stream = Stream(server, how | {"seed": 1000 * turn + n})
            firsts.append(stream.first)
            served.append(stream.last["type"] == "group")

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(clients)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        seconds.append(round(time.perf_counter() - start, 2))
        memory.append(server.memory())
    out = {"clients": clients, "rounds": rounds, "served": sum(served), "first_token_ms": spread(firsts)}
    return out | {"seconds_a_round": seconds, "memory_mb": memory}


def measure_new_program(server: Server, how: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A stream, and other requests, while programs for another request are compiled."""
    Stream(server, how)
    streams, ended, found = [], threading.Event(), []

    def stream() -> None:
        while not ended.is_set():
            streams.append(Stream(server, how | {"seed": len(streams)}))

    with ask_others(server) as others:
        thread = threading.Thread(target=stream)
        thread.start()
        found.append(Stream(server, how | new))
        ended.set()
        thread.join()
    gaps = [gap for s in streams for gap in s.gaps]
    out = {
        "new_first_token_ms": round(found[0].first, 1),
        "new_whole_ms": round(1e3 * (found[0].at[-1] - found[0].start), 1),
    }
    return out | {
        "other_stream_gap_ms": spread(gaps),
        "other_first_token_ms": spread([s.first for s in streams]),
        "others_ms": spread(others),
    }


def measure_step(server: Server, how: dict[str, Any]) -> dict[str, Any]:
    """Two policy-gradient steps on one group, the second in the copy that the first one made."""
    group = next(
        g
        for n in range(50)
        if (g := Stream(server, how | {"seed": n}).last)["summary"]["right"] % g["summary"]["attempts"]
    )
    said, seconds, model = [], [], None
    with ask_others(server) as others:
        for _ in range(2):
            start = time.perf_counter()
            fields = {"group": group["group"], "algorithm": "grpo"} | ({"model": model} if model else {})
            answer = server.post("/api/step", fields)
            seconds.append(round(time.perf_counter() - start, 2))
            said.append(answer["said"])
            model = answer["copy"]
    server.post("/api/reset", {"model": model})
    return {"said": said, "seconds": seconds, "others_ms": spread(others)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("address")
    parser.add_argument("--pid", type=int, default=0)
    parser.add_argument("--attempts", type=int, default=8)
    parser.add_argument("--many", type=int, default=64, help="attempts of the large request; 0: none")
    parser.add_argument("--clients", type=int, default=20, help="0: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=0, help="of a response; 0: as many as the page asks for")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", nargs="*", help="these measures alone")
    args = parser.parse_args()
    server = Server(args.address, args.pid)
    about = json.loads(server.get("/api/status"))
    source = about["sources"][0]
    how = {"problem": 0, "attempts": args.attempts, "max_tokens": args.tokens or source["max_tokens"]}
    measures = {
        "first_token": lambda: measure_first_token(server, how, args.repeats),
        "stream": lambda: measure_stream(server, how, max(1, args.repeats // 3)),
        "many_attempts": lambda: measure_stream(server, how | {"attempts": args.many}, 2) if args.many else None,
        "new_program": lambda: measure_new_program(server, how, {"attempts": max(1, args.attempts // 2), "top_p": 0.9}),
        "clients": lambda: measure_clients(server, how, args.clients, args.rounds) if args.clients else None,
        "step": lambda: measure_step(server, how),
    }
    common = {"policy": about["default"], "parameters": source["parameters"], "cores": os.cpu_count()}
    for name in args.only or measures:
        if (found := measures[name]()) is not None:
            line = {"benchmark": "playground", "measure": name} | found | common
            print(json.dumps(line | {"load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    main()
