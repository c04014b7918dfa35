"""The benchmark beside the peers: the model that counts down, workers in turn, ratios, and the table of the docs."""

import dataclasses
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizers

from benchmarks import packing
from benchmarks.peers import countdown, pairs, table, work_rljax
from benchmarks.peers.__main__ import Clocks, cores_of_others
from benchmarks.peers.cases import CASES, Case, task_of
from benchmarks.peers.json_worker import by_steps
from rljax import sampler, transformer
from rljax.errors import UserError
from rljax.json_lines import read_json_lines

ROOT = Path(__file__).parent.parent
TINY = transformer.Config(layers=1, width=32, heads=2, kv_heads=2, head_width=16, ff_width=32, vocab_size=64)
ANSWER = {"peak_mb": 100, "start_seconds": 5.0, "versions": {"x": "1"}}


@pytest.fixture(autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)  # JAX's default


@pytest.mark.parametrize(("lengths", "mean"), [("equal", 16.0), ("long", 6.0)])
def test_a_response_has_the_length_that_its_first_token_says(lengths, mean):
    params = countdown.make_params(TINY, countdown.length_chances(lengths, mean, 16))
    prompt = countdown.draw_prompts(TINY.vocab_size, 4, 8, 16)
    how = dict(group_size=64, max_new_tokens=16, stop_ids=(countdown.STOP,))
    rollout = sampler.sample(params, TINY, prompt, np.ones(prompt.shape, bool), jax.random.key(0), **how)
    sampled = np.asarray(rollout.lengths)
    counted = np.array(
        [list(row[:n]) == countdown.count_down(n) for row, n in zip(rollout.response, sampled, strict=True)]
    )
    assert counted.mean() > 0.98  # the next token of the count is likely, not certain
    expected = (countdown.length_chances(lengths, mean, 16) * np.arange(1, 17)).sum()
    assert abs(sampled.mean() - expected) < 4 * sampled.std() / 16 + 0.1
    assert (sampled.std() == 0) == (lengths == "equal")


def test_long_lengths_are_log_normal_with_the_mean_asked_for_but_for_the_cut():
    chances = countdown.length_chances("long", 60.0, 4096)
    lengths = np.arange(1, 4097)
    assert chances.sum() == pytest.approx(1) and (chances * lengths).sum() == pytest.approx(60, abs=0.6)
    cut = countdown.length_chances("long", 60.0, 256)
    np.testing.assert_allclose(cut[:255], chances[:255])
    assert cut[255] == pytest.approx(chances[255:].sum())


def test_a_tokenizer_that_looks_for_special_tokens_inside_of_words_reads_the_ids_of_a_prompt(tmp_path):
    config = dataclasses.replace(TINY, vocab_size=1024)
    countdown.write_folder(tmp_path, config, countdown.length_chances("equal", 16.0, 16))
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    named = json.loads((tmp_path / "tokenizer_config.json").read_text())
    tokenizer.add_special_tokens([named[f"{kind}_token"] for kind in ("eos", "pad", "unk")])
    for ids in countdown.draw_prompts(1024, 16, 32, 16).tolist():
        assert tokenizer.encode(countdown.words(ids)).ids == ids


def test_a_peer_whose_responses_have_other_lengths_is_no_comparison():
    ours, theirs = [ANSWER | {"seconds": 1.0, "cpu_seconds": 1.0, "tokens": n} for n in (2048, 32)]
    with pytest.raises(UserError, match="have not done the same work"):
        pairs.summarise(CASES[0], "trl", [ours] * 3, [theirs] * 3)


def test_every_case_has_a_name_of_its_own_and_a_vocabulary_for_its_count():
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        assert case.new + 2 < case.model.vocab_size
        assert case.packing == 0 or case.packing >= case.prompt_slots + case.new


@pytest.mark.parametrize("work", ["update", "step"])
def test_a_run_of_our_worker_learns_from_every_token(work, monkeypatch, tmp_path):
    monkeypatch.setitem(packing.MODELS, "tiny", TINY)
    case = Case(work, "tiny", 2, 8, "long", 4.0, group=2, prompt_slots=8, packing=16)
    countdown.write_folder(tmp_path / "model", case.model, countdown.length_chances("long", 4.0, 8))
    task = task_of(case, tmp_path / "model")
    run = work_rljax.prepare(task)
    tokens = [run(0), run(1)]
    if work == "update":
        assert tokens == [sum(map(len, task["responses"]))] * 2
    else:
        assert all(4 <= n <= 32 for n in tokens)


def test_a_ratio_is_seconds_a_token_of_the_peer_by_ours_in_each_round():
    answers = lambda values: [ANSWER | {"seconds": 9.0, "cpu_seconds": s, "tokens": n} for s, n in values]
    ours, theirs = answers([(50, 10), (1, 10), (2, 10), (1, 10)]), answers([(70, 10), (3, 10), (4, 20), (8, 10)])
    line = pairs.summarise(Case("sampler", "1M", 4, 64), "tunix", ours, theirs)
    assert line["ratio"] == {"median": 3.0, "min": 1.0, "max": 8.0} and line["pairs"] == 3
    assert line["rljax"]["tokens_per_second"] == 10 and line["rljax"]["seconds"] == [1, 2, 1]
    assert line["clock"] == "cpu_seconds" and line["peer_measured"]["versions"] == {"x": "1"}
    assert pairs.summarise(Case("step", "1M", 4, 64, cores=2), "tunix", ours, theirs)["clock"] == "seconds"


def test_what_others_use_is_the_time_of_the_cpus_without_our_own():
    assert cores_of_others(Clocks(100.0, 50.0, 7.0), Clocks(110.0, 75.0, 17.0)) == 1.5
    assert cores_of_others(Clocks(100.0, 50.0, 7.0), Clocks(110.0, 59.9, 17.0)) == 0.0


def test_workers_take_turns_after_each_has_compiled(monkeypatch):
    asked = []

    @contextmanager
    def fake(library, task, cores, cache=None):
        asked.append((library, "start"))
        yield lambda seed: asked.append((library, seed)) or {"seconds": 1.0, "start_seconds": 2.0}

    monkeypatch.setattr(pairs, "worker", fake)
    pairs.run_rounds(Case("sampler", "1M", 4, 64), {}, ("rljax", "tunix"), 2, (0,))
    assert asked == [
        ("rljax", "start"), ("rljax", 0), ("tunix", "start"), ("tunix", 0),
        ("rljax", 1), ("tunix", 1), ("rljax", 2), ("tunix", 2),
    ]  # fmt: skip
    asked.clear()
    answers = pairs.start_rounds(Case("start", "1M", 4, 64), {}, ("rljax", "tunix"), 1, (0,))
    assert [what for _, what in asked] == ["start", 0] * 4  # a new process for each start
    assert answers["rljax"][1]["seconds"] == 2.0


def test_a_worker_that_ends_is_reported_with_what_it_printed(monkeypatch):
    monkeypatch.setitem(pairs.ENVIRONMENTS, "nothing", ".venv")
    with pytest.raises(
        UserError, match=r"(?s)the worker of nothing ended.*No module named benchmarks.peers.work_nothing"
    ):
        with pairs.worker("nothing", {}, (0,)) as ask:
            ask(0)


def test_a_worker_answers_lines_and_what_it_prints_is_kept_apart():
    code = (
        "from benchmarks.peers.json_worker import serve\n"
        "def prepare(case):\n    print('noise')\n    return lambda seed: case['n'] * seed\n"
        "serve(prepare, ('jax',))"
    )
    lines = "".join(json.dumps(line) + "\n" for line in ({"n": 3}, {"seed": 1}, {"seed": 5}))
    done = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, cwd=ROOT)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["tokens"] for answer in answers] == [3, 15]
    assert set(answers[0]) == {"seconds", "cpu_seconds", "tokens", "peak_mb", "versions"}
    assert set(answers[0]["versions"]) == {"jax"} and "noise" in done.stderr


def test_a_trainers_own_loop_does_one_step_a_call_and_its_error_is_raised():
    done = []

    def loop(pause):
        for n in range(2):
            done.append(n)
            pause()
        raise ValueError("the data ended")

    step = by_steps(loop)
    assert done == []
    step()
    assert done == [0]
    step()
    assert done == [0, 1]
    with pytest.raises(ValueError, match="the data ended"):
        step()


def test_the_table_of_the_page_is_that_of_the_results(tmp_path):
    lines = read_json_lines(table.RESULTS)
    assert table.BEGIN + table.table(lines) + table.END in table.PAGE.read_text()
    page = tmp_path / "page.md"
    page.write_text("before\n" + table.BEGIN + "old\n" + table.END + "after\n")
    table.write(page)
    assert page.read_text() == "before\n" + table.BEGIN + table.table(lines) + table.END + "after\n"
    assert all(f"| {line['rows']} × {line['new']} |" in page.read_text() for line in lines)
