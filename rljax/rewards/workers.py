"""Text verifiers in worker processes: a hostile or broken response costs its own reward, never the run or its neighbours.

A verifier that raises has judged: the response is wrong, and is counted as ``verifier_error``. A worker that dies or hangs has
judged nothing. Its share of the batch is asked again one response at a time, and a response whose worker dies or hangs once more
is unscored: every score is NaN, and ``verifier_unscored`` counts it.
"""

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from rljax.errors import UserError
from rljax.options import loaded_plugins
from rljax.rewards.scoring import UNSCORED, Pairs, Score, Scores, score_pairs
from rljax.rewards.terms import Term
from rljax.rewards.worker_process import STOP_SIGNALS, import_task, prepare_process
from rljax.tasks import Task

TIMEOUT = 60.0  # seconds for a batch, beyond what a verifier that limits each response may take
RESPONSE_TIMEOUT = 10.0  # seconds for each of those, and for one that is asked again alone
START_TIMEOUT = 120.0  # seconds for a new process, which imports the task
END_TIMEOUT = 10.0  # seconds for one that was killed
MAX_UNSCORED = 0.25  # share of the responses of a batch
WAIT_SECONDS = 1.0  # the most that one look at a worker adds to its time, so that a pause of this process adds no more
MAX_GROWTH = 2 << 30  # bytes that a worker may gain since its first batch, before a new one takes its place
MAX_OPEN_FILES = 512  # the same for what it leaves open
LOST = (TimeoutError, BrokenProcessPool, CancelledError)  # the process hangs or is gone


class Patience(NamedTuple):
    """How long a worker may take, and how many responses may stay unscored."""

    seconds: float  # for a share of the batch
    per_response: float  # for each response beyond that: 0 unless the verifier limits each response
    max_unscored: float  # share of the responses of a batch

    def of_share(self, size: int) -> float:
        return self.seconds + self.per_response * size

    def of_response(self) -> float:
        return min(self.seconds, RESPONSE_TIMEOUT) + self.per_response


def make_scorer(
    task: Task, workers: int, timeout: float, terms: Sequence[Term], max_unscored: float = MAX_UNSCORED
) -> Callable[[Iterable[Pairs], int], list[Scores]]:
    """``score(parts, size) -> [{name: number}]`` of a batch of ``size`` responses, in ``workers`` processes (0: in this one).

    The batch comes in parts, each of which is scored before the next is asked for. What is said of a batch, and raised, does
    not depend on the parts. Workers are started with the first batch and replaced where they die or hang. See ``host_verifier``
    for the errors.
    """
    patience = Patience(timeout, RESPONSE_TIMEOUT if task.verify_batch else 0.0, max_unscored)
    pool: list[Worker] = []
    batches = 0
    said: set[str] = set()
    score = functools.partial(score_pairs, task.verify, task.verify_batch, task.prefill, terms)

    def say_once(kind: str, text: str) -> None:
        if kind not in said:
            said.add(kind)
            print(f"task {task.name}: {text}", file=sys.stderr, flush=True)

    def score_batch(parts: Iterable[Pairs], size: int) -> list[Scores]:
        nonlocal batches
        lost, out = itertools.count(1), []
        count_lost = lambda: check_unscored(next(lost), size, patience.max_unscored, task.name)
        for pairs in filter(None, parts):
            if workers and not pool:
                pool.extend(Worker(score) for _ in range(workers))
            out += score_in_workers(pool, pairs, patience, count_lost) if workers else score(pairs)
        raised = [(s["raised_by"], s["exception"]) for s in out if "exception" in s]
        if raised and not batches and len(raised) == len(out) > 1:
            raise UserError(
                f"task {task.name}: {raised[0][0]} raised an exception for all {len(out)} responses of the first batch: "
                f"{raised[0][1]}"
            )
        if raised:
            text = f"{raised[0][0]} raised {raised[0][1]}; it scores 0 for such responses (verifier_error counts them)"
            say_once("raised", text)
        unscored = sum(bool(s["verifier_unscored"]) for s in out)
        check_unscored(unscored, len(out), patience.max_unscored, task.name)
        if unscored:
            say_once(
                "unscored",
                f"{unscored} of {len(out)} responses could not be scored, because the verifier or a term of the reward gave "
                "NaN, or because its process died or hung, also when each was asked alone: nothing is learned from them (verifier_unscored counts them)",
            )
        batches += 1
        return out

    return score_batch


class Worker:
    """One worker process, which is started when it is needed and replaced after it died or hung. One caller at a time."""

    def __init__(self, score: Score):
        self.score = score
        self.executor: ProcessPoolExecutor | None = None
        self.at_the_end: weakref.finalize | None = (
            None  # ends the process, at the latest when nobody has this worker any more
        )
        self.first_size = 0  # bytes in memory after its first batch

    def ask(self, pairs: Pairs, seconds: float) -> list[Scores]:
        """What the responses score. Raises one of ``LOST`` where the process dies, or takes longer than ``seconds``.

        A process that leaks memory or open files is ended afterwards; the next batch starts another.
        """
        out = result_within(self.submit(self.score, pairs), seconds)
        size, files = measure_process(self.process_id())
        self.first_size = self.first_size or size
        if size > self.first_size + MAX_GROWTH or files > MAX_OPEN_FILES:
            self.kill()
        return out

    def process_id(self) -> int:
        """The id of the process; 0 where none runs."""
        return next(iter(getattr(self.executor, "_processes", None) or {}), 0)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        if self.executor is None:
            self.executor = self.start()
        return self.executor.submit(function, *arguments)

    def start(self) -> ProcessPoolExecutor:
        """A new process that has imported the task. Raises UserError where it does not come up: no response did that."""
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(1, context, initializer=prepare_process, initargs=(loaded_plugins(),))
        self.executor = executor
        self.at_the_end = weakref.finalize(self, end_executor, executor)
        try:
            with without_stop_signals():
                ready = executor.submit(import_task, self.score)
            ready.result(START_TIMEOUT)
        except LOST as e:
            self.kill()
            raise UserError(
                f"a process for the verifier does not start ({type(e).__name__}): is there enough memory? A script that "
                "calls rljax needs `if __name__ == '__main__':`. config.workers=0 verifies in the main process"
            ) from None
        return executor

    def kill(self) -> None:
        """End the process, even where it hangs."""
        self.executor, self.first_size = None, 0
        if self.at_the_end is not None:
            self.at_the_end()


def end_executor(executor: ProcessPoolExecutor) -> None:
    """End an executor's process, even where it hangs, and the thread that watches it.

    Python's exit talks to that thread. Where it is ending by itself at the same moment, the exit fails with a traceback.
    """
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        process.kill()
    thread = getattr(executor, "_executor_manager_thread", None)
    executor.shutdown(wait=False, cancel_futures=True)
    if thread is not None and thread is not threading.current_thread():
        thread.join(END_TIMEOUT)


def result_within(future: Future, seconds: float) -> Any:
    """The result of a future. Raises TimeoutError after ``seconds``, in which no pause of this process counts.

    A process that was stopped for a minute (SIGSTOP, a suspended job, a busy machine) learns nothing from its clock about
    the worker. So each look adds at most ``WAIT_SECONDS``.
    """
    while seconds > 0:
        before = time.monotonic()
        try:
            return future.result(min(seconds, WAIT_SECONDS))
        except TimeoutError:
            if future.done():
                return future.result()  # raises what the worker raised
            seconds -= min(time.monotonic() - before, WAIT_SECONDS)
    raise TimeoutError


def measure_process(pid: int) -> tuple[int, int]:
    """(bytes in memory, open files) of a process; (0, 0) where they are not known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))
    return 0, 0


def score_in_workers(
    pool: Sequence[Worker], pairs: Pairs, patience: Patience, count_lost: Callable[[], None]
) -> list[Scores]:
    """What the responses score, each worker a share of them. ``count_lost`` is called for each that stays unscored.

    It raises UserError as soon as there are too many of these.
    """
    share = max(1, -(-len(pairs) // len(pool)))
    shares = [pairs[i : i + share] for i in range(0, len(pairs), share)]
    stopped = threading.Event()
    threads = ThreadPoolExecutor(len(pool))
    try:
        jobs = [
            threads.submit(score_share, worker, some, patience, count_lost, stopped)
            for worker, some in zip(pool, shares, strict=False)
        ]
        return [scores for job in jobs for scores in job.result()]
    except BaseException:
        stopped.set()
        for worker in pool:  # Python would wait at its exit for one that hangs
            worker.kill()
        raise
    finally:
        threads.shutdown(wait=False)


def score_share(
    worker: Worker, pairs: Pairs, patience: Patience, count_lost: Callable[[], None], stopped: threading.Event
) -> list[Scores]:
    """What a share scores. Where its process dies or hangs, each response is asked again alone.

    ``count_lost`` is called for each that stays unscored. Nothing more is asked once ``stopped`` is set.
    """
    try:
        return worker.ask(pairs, patience.of_share(len(pairs)))
    except LOST:
        worker.kill()
    out: list[Scores] = []
    for pair in pairs:
        if stopped.is_set():
            break
        try:
            out += worker.ask([pair], patience.of_response())
        except LOST:
            worker.kill()
            out.append(dict(UNSCORED))
            count_lost()
    return out


def check_unscored(unscored: int, responses: int, max_unscored: float, name: str) -> None:
    """Raise UserError where more responses of a batch are unscored than the share ``max_unscored`` of them."""
    if unscored > max_unscored * responses:
        raise UserError(
            f"task {name}: {unscored} of {responses} responses could not be scored, because the verifier or a term of the "
            f"reward gave NaN, or because its process died or hung, also when each was asked alone; max_unscored={max_unscored:g} is the largest share that may be. Look at "
            "the verifier and at the memory of this machine, or raise --config.max_unscored; the same command continues "
            "from the last checkpoint"
        )


@contextlib.contextmanager
def without_stop_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP wait while the block runs, in this thread and in the processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
