"""Isolation of programs: no hostile program passes, learns what is expected, or changes anything outside its jail."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rljax.errors import UserError
from rljax.verifiers import sandbox
from rljax.verifiers.jail import confinement, pool
from rljax.verifiers.sandbox import Case, Limits, run, run_many

sys.path.insert(0, str(Path(__file__).parent))
from honest_programs import GOOD, SCRIPTS_THAT_PASS, TESTS_THAT_PASS  # noqa: E402
from hostile_programs import BEYOND_LIMITS, CTYPES, MODULES, SCRIPTS, SEARCH  # noqa: E402

TIGHT = Limits(cpu_seconds=0.4, wall_seconds=1.5, memory=96 << 20)
TOKEN = "zebraquartz"
TESTS = [
    f"assert answer(7) == {TOKEN!r}",
    "assert math.isclose(answer(7), 12345.678)",
    "assert abs(answer(7) - 12345.678) < 1e-6",
    "assert answer(7) in [12345, (1, 2)]",
    "assert answer(7).startswith('zebra')",
    "assert answer(7).issubset({1})",
    "assert answer(7).difference({1}) == set()",
    "assert answer(7).all()",
    "assert answer(7).lower('A') == 'a'",
    "assert set(answer(7)) == {'a'} and isinstance(answer(7), str)",
]


class Outside:
    """What a hostile program could reach outside: a folder that anybody may write, and sockets that anybody may use."""

    def __init__(self, folder: str):
        self.folder = folder
        os.chmod(folder, 0o777)
        Path(folder, "sentinel").write_text("untouched")
        os.chmod(f"{folder}/sentinel", 0o666)
        self.name = f"rljax-{os.getpid()}-{os.urandom(4).hex()}"
        self.sockets = [socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        self.sockets += [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        self.sockets += [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)]
        self.sockets[0].bind(("127.0.0.1", 0))
        self.port = self.sockets[0].getsockname()[1]
        self.sockets[1].bind(("127.0.0.1", self.port))
        self.sockets[2].bind(f"{folder}/socket")
        os.chmod(f"{folder}/socket", 0o777)
        self.sockets[3].bind(f"\0{self.name}")
        self.sockets[4].bind(f"\0{self.name}d")
        for s in (self.sockets[0], self.sockets[2], self.sockets[3]):
            s.listen()
        self.before = self.snapshot()

    def snapshot(self):
        files = sorted((p.name, p.lstat().st_mode, p.lstat().st_uid) for p in Path(self.folder).iterdir())
        sentinel = Path(self.folder, "sentinel")
        return files, sentinel.read_text(), sentinel.stat().st_mtime, sentinel.stat().st_nlink

    def fill(self, program: str) -> str:
        values = {"OUTSIDE": self.folder, "PARENT": str(os.getpid()), "PORT": str(self.port), "NAME": self.name}
        if len(program) < 10_000:
            for name, value in values.items():
                program = program.replace(name, value)
        return program

    def close(self):
        for s in self.sockets:
            s.close()


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    os.environ["SECRET_TOKEN"] = TOKEN
    folder = tempfile.mkdtemp(prefix="sandbox-test-", dir="/tmp")
    out = Outside(folder)
    yield out
    out.close()
    shutil.rmtree(folder)


def leftovers() -> list[str]:
    """The files in the folders of the zygotes of this process."""
    folders = Path(tempfile.gettempdir()).glob("rljax-sandbox-*/work")
    return [str(p) for folder in folders for p in folder.iterdir() if str(folder.parent) in own_folders()]


def own_folders() -> set[str]:
    return {z.folder for z in list(pool.get_pool(sandbox.get_isolation()).free.queue)}


def hostile(kind: str, name: str, outside: Outside, limits: Limits = TIGHT) -> list[sandbox.Outcome]:
    """The outcomes of a hostile program."""
    if kind == "script":
        return run(outside.fill(SCRIPTS[name]), [Case(stdin="7\n", stdout="escaped\n")], limits)
    return run(outside.fill(MODULES[name]), TESTS, limits, until_failure=True)


ALL = [("script", name) for name in SCRIPTS] + [("tests", name) for name in MODULES]


@pytest.mark.parametrize(("kind", "name"), ALL, ids=[f"{kind}: {name}" for kind, name in ALL])
def test_a_hostile_program_does_not_pass_and_leaves_no_trace(kind, name, outside):
    outcomes = hostile(kind, name, outside)
    assert not any(o.passed for o in outcomes), outcomes
    assert "untouched" not in outcomes[0].output
    assert outcomes[0].verdict in {"wrong", "error", "timeout", "memory", "output", "killed", "refused"}
    assert run(*GOOD)[0].passed
    assert outside.snapshot() == outside.before
    assert not leftovers()


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(
    "name",
    [
        "equal to everything",
        "names of modules",
        "names of builtins",
        "more names than were asked for",
        "NaN",
        "a type in place of a value",
        "an object with the methods of an array",
    ],
)
def test_no_deceiving_object_passes_any_form_of_test(name, test):
    assert not run(MODULES[name], [test], TIGHT)[0].passed


@pytest.mark.parametrize("name", BEYOND_LIMITS)
def test_the_kernel_bounds_files_and_threads_of_a_program(name):
    found = sandbox.get_isolation()
    kind = "threads" if "thread" in name else "files"
    if not (found.counts_threads if kind == "threads" else found.own_files):
        assert found.own_user or any(kind in gap for gap in found.gaps)
        return
    outcome = run(BEYOND_LIMITS[name], [("", "escaped")], Limits(wall_seconds=3))[0]
    assert "escaped" not in outcome.output and not outcome.passed, outcome
    assert run(*GOOD)[0].passed


def test_where_the_kernel_bounds_no_files_and_no_threads_programs_still_run_and_files_are_looked_at(monkeypatch):
    weak = sandbox.get_isolation()._replace(own_files=False, counts_threads=False)
    monkeypatch.setattr(confinement, "probe_isolation", lambda: weak)
    for name in ("its own files", "many threads", "shelve", "input"):
        program, stdin, stdout = SCRIPTS_THAT_PASS[name]
        assert run(program, [(stdin, stdout)])[0].passed
    assert run(*GOOD)[0].passed
    fills = (
        CTYPES
        + "import os\nf = os.open('x', os.O_CREAT | os.O_WRONLY)\nprint(call(number(285, 47), f, 0, 0, 1 << 20), ctypes.get_errno())"
    )
    assert run(fills, [("", "-1 95")])[0].passed, "fallocate is refused, so that libraries write zeros instead"
    assert run(SCRIPTS["many files"], [("", "x")], TIGHT)[0].verdict == "output"


def test_honest_neighbours_of_a_thread_bomb_pass():
    """The bomb and its neighbours are of one user where the caller is not root, and share its processes."""
    honest = ("import threading\nfor n in range(8): threading.Thread(target=int).start()\nprint('x')", [("", "x")])
    bomb = (SCRIPTS["thread bomb"], [("", "x")])
    outcomes = run_many([bomb, honest, honest, bomb, honest], TIGHT)
    assert [o[0].passed for o in outcomes] == [False, True, True, False, True], outcomes


def test_what_the_kernel_cannot_bound_is_said_once_at_the_start(monkeypatch, caplog):
    everything = confinement.Isolation(6, True, own_user=False, own_files=True, counts_threads=True)
    nothing = confinement.Isolation(6, True, own_user=False)
    assert not everything.gaps and not everything._replace(counts_threads=False, own_user=True).gaps
    for found, lines in [(everything, 0), (nothing, 1)]:
        monkeypatch.setattr(confinement, "probe_isolation", lambda found=found: found)
        sandbox.warn_of_gaps.cache_clear()
        caplog.clear()
        sandbox.require_isolation()
        sandbox.require_isolation()
        assert len(caplog.messages) == lines
    assert "threads" in caplog.messages[0] and "removes while" in caplog.messages[0]


VERDICTS = [
    ("infinite loop", "timeout"),
    ("sleep forever", "timeout"),
    ("memory bomb", "memory"),
    ("huge output", "output"),
    ("huge output to stderr", "output"),
    ("many files", "output"),
    ("thread bomb", "error"),
    ("x32 system call", "killed"),
    ("32-bit system call", "killed"),
    ("read passwd", "error"),
    ("TCP", "error"),
    ("fork bomb", "error"),
    ("right but fails", "error"),
    ("exit at once", "wrong"),
    ("10 MB of source", "refused"),
]


@pytest.mark.parametrize(("name", "verdict"), VERDICTS)
def test_the_verdict_says_what_was_wrong(name, verdict, outside):
    if os.uname().machine != "x86_64" and "system call" in name:
        verdict = "error"
    # on a busy machine it may need more CPU time than TIGHT grants to exceed another limit
    limits = TIGHT if verdict == "timeout" else TIGHT._replace(cpu_seconds=10.0)
    assert hostile("script", name, outside, limits)[0].verdict == verdict


# Secrecy


def test_the_expected_result_is_nowhere_in_the_memory_of_the_program():
    tests = [f"assert answer(1) == {TOKEN!r}", "assert answer(1) == 'nothing'", f"assert answer(1) != {TOKEN!r}"]
    verdicts = [o.verdict for o in run(SEARCH, tests, Limits(cpu_seconds=20, wall_seconds=60))]
    assert verdicts == ["wrong", "passed", "passed"]
    script = SEARCH + "\nprint(answer(1))\nprint('x')"
    assert run(script, [("", f"{TOKEN}\n")], Limits(cpu_seconds=20, wall_seconds=60))[0].output == "nothing\nx\n"


def test_a_program_does_not_see_the_environment_of_its_caller(outside):
    out = run("import os; print(sorted(os.environ))", [("", "x")])[0].output
    assert "SECRET" not in out and "PATH'" not in out


# Other users, containers, other kernels

AS_USER = """
import ctypes, os, sys
sys.path[:0] = sys.argv[1:3]
how = sys.argv[3]
if how == "user":
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
if how == "container":  # no right of root that Docker takes away; see capabilities(7)
    keep = sum(1 << n for n in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)) & ~(1 << 21)
    import struct
    word = struct.pack("<IIIIII", keep, keep, keep, 0, 0, 0)
    libc = ctypes.CDLL(None); number = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
    assert libc.syscall(number, struct.pack("<II", 0x20080522, 0), word) == 0
if how == "no rights":
    import struct
    libc = ctypes.CDLL(None); number = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
    assert libc.syscall(number, struct.pack("<II", 0x20080522, 0), bytes(24)) == 0
import tempfile
tempfile.tempdir = "/tmp"
"""

EVERYTHING = """
import importlib.util, json, os, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from rljax.verifiers import sandbox
from rljax.verifiers.sandbox import Case, Limits
with open(sys.argv[4]) as file: jobs = json.load(file)
found = []
for name, program, cases, good in jobs:
    cases = [Case(**c) for c in cases]
    bad = program.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
    found.append((name, bad.replace("PARENT", str(os.getpid())) if len(bad) < 10000 else bad, cases, good))
wrong = []
for good, seconds, wall in [(True, 5, 60), (False, 0.1, 1)]:
    some = [job for job in found if job[3] is good]
    limits = Limits(cpu_seconds=seconds, wall_seconds=wall, memory=96 << 20)
    outcomes = sandbox.run_many([(p, c) for _, p, c, _ in some], limits, until_failure=True)
    wrong += [(job[0], [list(x) for x in o]) for job, o in zip(some, outcomes) if all(x.passed for x in o) != good]
print(json.dumps([list(sandbox.get_isolation()), os.getuid(), wrong]))
"""


def all_jobs(outside: Outside) -> list:
    """Every hostile and honest program: [name, program, cases, whether it must pass]."""
    slow = {"sleep forever", "read forever", "threads that do not end", "thread bomb", "sleeps"}
    fill = lambda program: outside.fill(program.replace("PARENT", "PAR" + "ENT"))
    out = []
    for name, program in SCRIPTS.items():
        if name not in slow and len(program) < 100_000:
            program = program.replace("PARENT", "\1")
            out.append(
                [name, outside.fill(program).replace("\1", "PARENT"), [{"stdin": "7\n", "stdout": "escaped"}], False]
            )
    for name, program in MODULES.items():
        if name not in slow:
            out.append([name, fill(program), [{"test": test} for test in TESTS[:2]], False])
    for name, (program, stdin, stdout) in SCRIPTS_THAT_PASS.items():
        out.append([name, program, [{"stdin": stdin, "stdout": stdout}], True])
    for name, (program, cases) in TESTS_THAT_PASS.items():
        given = [sandbox.test_cases.parse_case(c) for c in cases]
        out.append([name, program, [{"test": c.test, "setup": c.setup, "entry": c.entry} for c in given], True])
    return out


def interpreter_for_others(folder: Path) -> str:
    """A Python that can import its library as another user: ours, one of the system, or a copy of ours."""
    probe = "import os, sys; os.setgid(65534); os.setuid(65534); import tempfile, json; sys.exit(sys.version_info < (3, 11))"
    for path in filter(os.path.exists, (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3")):
        if subprocess.run([path, "-c", probe], stderr=subprocess.DEVNULL, cwd="/").returncode == 0:
            return path
    home = Path(os.__file__).parents[2]
    ignore = shutil.ignore_patterns("site-packages", "test", "__pycache__", "idlelib", "*.a")
    shutil.copytree(Path(os.__file__).parent, folder / "lib" / Path(os.__file__).parent.name, ignore=ignore)
    shutil.copytree(home / "bin", folder / "bin", ignore=shutil.ignore_patterns("pip*", "*config*"), symlinks=True)
    return str(folder / "bin" / f"python3.{sys.version_info.minor}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", ["user", "container", "no rights"])
def test_programs_are_isolated_for_an_ordinary_user_and_in_a_container(how, outside):
    root = os.geteuid() == 0
    if not root:
        how = "unchanged"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        jobs = Path(folder, "jobs.json")
        jobs.write_text(json.dumps(all_jobs(outside)))
        python = interpreter_for_others(Path(folder)) if how == "user" else sys.executable
        program = AS_USER + EVERYTHING
        package = Path(folder, "package")
        shutil.copytree(Path(sandbox.__file__).parents[1] / "verifiers", package / "rljax" / "verifiers")
        for file in ("__init__.py", "errors.py"):
            shutil.copy(Path(sandbox.__file__).parents[1] / file, package / "rljax")
        command = [python, "-B", "-c", program, str(package), folder, how, str(jobs)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr
        isolation, user, wrong = json.loads(done.stdout.splitlines()[-1])
    assert wrong == []
    assert isolation[2] is (how == "container") and user == (65534 if how == "user" else os.getuid())
    assert outside.snapshot() == outside.before


def test_without_isolation_programs_are_refused_unless_unsafe_runs_are_allowed(monkeypatch):
    monkeypatch.setattr(
        confinement, "probe_isolation", lambda: confinement.Isolation(landlock=0, seccomp=False, own_user=False)
    )
    with pytest.raises(UserError, match="no Landlock and no seccomp.*allow_unsafe"):
        run(*GOOD)
    assert run(*GOOD, allow_unsafe=True)[0].passed
    assert run("while True: pass", [("", "x")], TIGHT, allow_unsafe=True)[0].verdict == "timeout"
    orphan = "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0: time.sleep(1e6)\n"
    assert run(orphan, [("", "x")], TIGHT, allow_unsafe=True)[0].verdict in {"wrong", "timeout"}
    assert run(*GOOD, allow_unsafe=True)[0].passed
    for zygote in list(pool.get_pool(sandbox.get_isolation()).free.queue):
        children = Path(f"/proc/{zygote.process.pid}/task/{zygote.process.pid}/children") if zygote.process else None
        assert not (children and children.exists() and children.read_text())


def test_the_error_names_the_missing_part_of_the_isolation(monkeypatch):
    monkeypatch.setattr(
        confinement, "probe_isolation", lambda: confinement.Isolation(landlock=0, seccomp=True, own_user=False)
    )
    with pytest.raises(UserError, match="no Landlock "):
        run_many([GOOD])
