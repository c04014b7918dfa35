"""The queue of the device: turns, stops, limits and failures."""

import threading

import pytest

from rljax.errors import UserError
from rljax.serving.aside import Aside, do_aside
from rljax.serving.engine import ASIDE, BusyError, Engine


@pytest.fixture
def gate():
    """What holds the device within a turn."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def engine(gate):
    engine = Engine(running=2, waiting=2)
    yield engine
    gate.set()
    engine.close()


def work(name, turns, log, gate=None, began=None):
    try:
        for n in range(turns):
            if gate:
                (began or threading.Event()).set()
                gate.wait()
            log.append(f"{name}{n}")
            yield n
    finally:
        log.append(f"{name} closed")


class Ear:
    """Whoever asked."""

    def __init__(self):
        self.told, self.ended = [], threading.Event()

    def __call__(self, told):
        self.told.append(told)
        if told.ended:
            self.ended.set()


def hold(engine, gate, log=()):
    """A request that has the device until the gate opens."""
    began, ear = threading.Event(), Ear()
    ticket = engine.submit(work("first", 1, list(log), gate, began), ear)
    assert began.wait(30)
    return ticket


def test_two_requests_take_turns(engine, gate):
    log, ears = [], [Ear(), Ear()]
    hold(engine, gate)
    for name, ear in zip("ab", ears, strict=True):
        engine.submit(work(name, 5, log), ear)
    gate.set()
    assert all(ear.ended.wait(30) for ear in ears)
    turns = "".join(line[0] for line in log if "closed" not in line)
    assert "ababab" in turns and turns.count("a") == turns.count("b") == 5
    assert [told.value for told in ears[0].told] == [0, 1, 2, 3, 4, None]


def test_a_request_that_was_stopped_gets_no_further_turn(engine, gate):
    log, first, second, began = [], Ear(), Ear(), threading.Event()
    ticket = engine.submit(work("a", 10**9, log, gate, began), first)
    assert began.wait(30)
    ticket.stop()
    gate.set()
    assert engine.wait_until_idle(30)
    assert log == ["a0", "a closed"] and not first.ended.is_set()
    engine.submit(work("b", 1, log), second)
    assert second.ended.wait(30)


def test_one_request_too_many_is_refused_and_a_stopped_one_makes_room(engine, gate):
    hold(engine, gate)
    last = Ear()
    tickets = [engine.submit(work("a", 1, []), Ear()) for _ in range(2)]
    with pytest.raises(BusyError, match="2 requests wait already"):
        engine.submit(work("a", 1, []), last)
    assert engine.count() == {"running": 1, "preparing": 0, "waiting": 2}
    tickets[-1].stop()
    engine.submit(work("a", 1, []), last)
    gate.set()
    assert last.ended.wait(30) and engine.wait_until_idle(30)


def test_a_request_that_fails_costs_the_others_nothing(capsys):
    engine = Engine(running=2, waiting=3)

    def wrong():
        yield 1
        raise UserError("the prompt is too long")

    def broken():
        raise ValueError("a defect")
        yield

    ears = [Ear(), Ear(), Ear()]
    for source, ear in zip((wrong(), broken(), work("a", 2, [])), ears, strict=True):
        engine.submit(source, ear)
    assert all(ear.ended.wait(30) for ear in ears)
    assert str(ears[0].told[-1].error) == "the prompt is too long"
    assert "ValueError" in str(ears[1].told[-1].error) and "a defect" not in str(ears[1].told[-1].error)
    assert ears[2].told[-1].error is None
    engine.close()
    assert "a defect" in capsys.readouterr().err


def test_whoever_waits_is_told_when_the_engine_is_closed():
    ears = [Ear(), Ear()]
    engine = Engine(running=1)
    for ear in ears:
        engine.submit(work("a", 10**9, []), ear)
    engine.close()
    assert all(str(ear.told[-1].error) == "the playground was closed" for ear in ears)


def prepare(call, log=()):
    """A request that has something done aside before its only turn."""
    value = yield from do_aside(call)
    yield value


def submit_aside(engine, call, ear=None):
    """The ticket of a request, when it has something to be done aside."""
    ticket = engine.submit(prepare(call), ear or Ear())
    with engine.changed:
        assert engine.changed.wait_for(lambda: ticket.is_aside and not engine.waiting, 30)
    return ticket


def test_others_have_turns_while_a_request_has_something_done_aside(engine, gate):
    slow, quick, began = Ear(), [Ear() for _ in range(3)], threading.Event()
    engine.submit(prepare(lambda: (began.set(), gate.wait(), "made")[-1]), slow)
    assert began.wait(30)
    for ear in quick:
        engine.submit(work("a", 3, []), ear)
        assert ear.ended.wait(30)
    assert not slow.told and engine.count() == {"running": 0, "preparing": 1, "waiting": 0}
    gate.set()
    assert slow.ended.wait(30) and [told.value for told in slow.told] == ["made", None]


def test_requests_with_work_aside_take_no_more_places_than_there_are_again(engine, gate):
    ears = [Ear() for _ in range(5)]
    for ear in ears[:4]:
        submit_aside(engine, gate.wait, ear)
    engine.submit(work("a", 1, []), ears[4])
    assert engine.count() == {"running": 0, "preparing": 4, "waiting": 1}
    gate.set()
    assert all(ear.ended.wait(30) for ear in ears)


def test_a_request_that_is_stopped_while_work_is_done_aside_leaves_at_once(engine, gate):
    began, ear = threading.Event(), Ear()
    ticket = engine.submit(prepare(lambda: (began.set(), gate.wait())), ear)
    assert began.wait(30)
    ticket.stop()
    assert engine.wait_until_idle(30) and not ear.told


def test_what_nobody_waits_for_any_longer_is_not_begun_aside(engine, gate):
    begun, last = [], Ear()
    for _ in range(ASIDE):
        submit_aside(engine, gate.wait)
    ticket = submit_aside(engine, lambda: begun.append("stopped"))
    ticket.stop()
    engine.submit(prepare(lambda: begun.append("last")), last)
    gate.set()
    assert last.ended.wait(30) and begun == ["last"]


def test_what_fails_aside_is_an_error_of_its_request(engine):
    def fail():
        raise UserError("the checkpoint is damaged")

    ears = [Ear(), Ear()]
    engine.submit(prepare(fail), ears[0])
    engine.submit(work("a", 2, []), ears[1])
    assert all(ear.ended.wait(30) for ear in ears)
    assert str(ears[0].told[-1].error) == "the checkpoint is damaged" and ears[1].told[-1].error is None


def test_what_nobody_does_aside_is_done_when_it_is_wanted():
    jobs = list(prepare(lambda: 7))
    assert isinstance(jobs[0], Aside) and jobs[1:] == [7]
