"""Side by side with TRL: what both sides are asked, how they stop, what is verified, and the figure."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_folder

from benchmarks.peers import word_problems
from rljax.json_lines import read_json_lines
from rljax.tasks.task import response_text
from rljax.text.hf_tokenizer import load_tokenizer
from rljax.training.run import resolve


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tiny_folder.make(tmp_path_factory.mktemp("model"), max_length=1024)
    sizes = dict(level="1-2", tokens=12, examples=1, steps=3, eval_every=1, prompts=2, group=4, problems=4, attempts=4)
    return argparse.Namespace(folder=folder, **sizes)


def test_the_prompts_of_all_steps_are_written_in_the_order_of_training(asked, tmp_path):
    run = resolve(word_problems.make_config(asked, 5), "rl")
    assert (run.seed, run.rl.loop.steps, run.rl.problems.prompts, run.rl.sampling.group_size) == (5, 3, 2, 4)
    word_problems.write_questions(run, tmp_path / "questions.jsonl")
    lines = read_json_lines(tmp_path / "questions.jsonl")
    assert len(lines) == 6 and len({line["prompt"] for line in lines}) == 6
    problems = run.task.problems(5, range(6), "train")
    for n, line in enumerate(lines):
        ids = problems.prompt[n][problems.prompt_mask[n]].tolist()
        assert line["ids"] == ids == run.task.tokenizer.encode(line["prompt"])
        assert line["record"] == run.task.records(problems.facts)[n]


def test_every_token_with_a_newline_ends_a_response(asked):
    run = resolve(word_problems.make_config(asked, 0), "rl")
    stops, tokenizer = word_problems.find_stop_ids(run), run.task.tokenizer
    assert set(tokenizer.stop_ids) <= set(stops)
    assert all("\n" in tokenizer.decode([i]) for i in stops if i not in tokenizer.stop_ids)
    assert tokenizer.encode("\n")[0] in stops and tokenizer.encode("5")[0] not in stops


def test_the_verifier_of_the_peer_is_ours(asked):
    run = resolve(word_problems.make_config(asked, 0), "rl")
    tokenizer, stops = load_tokenizer(asked.folder), word_problems.find_stop_ids(run)
    record = run.task.read_prompt("Each pear costs $3. Leo buys 5 pears. What is the total cost?")
    texts = [" 5 * 3 = 15. The answer is 15.\n", " The answer is 14.\n", " The answer is 15."]
    about = {"folder": str(asked.folder), "options": run.record["task"]["options"], "stop_ids": stops}
    said = [about, [[tokenizer.encode(text), record] for text in texts]]
    command = [sys.executable, "-m", "benchmarks.peers.verify_words"]
    lines = "".join(json.dumps(line) + "\n" for line in said)
    root = Path(__file__).parent.parent
    found = subprocess.run(command, input=lines, text=True, capture_output=True, check=True, cwd=root).stdout
    assert [json.loads(line) for line in found.splitlines()] == ["ready", [1.0, 0.0, 0.0]], "the last has not ended"
    assert response_text(tokenizer, tokenizer.encode(texts[0]), True, run.task.stops).endswith("<eos>")


def line_of(library, seed, end):
    evaluations = [{"step": s, "pass@1": 0.3 + end * s / 10, "response_length/mean": 24 - s} for s in (0, 5, 10)]
    about = {"library": library, "seed": seed, "model": "tiny", "level": "2", "problems": 48}
    return about | {"evaluations": evaluations, "seconds": [2.0, 3.0, 2.5]}


def test_both_curves_are_drawn_from_the_results(tmp_path):
    lines = [line_of(library, seed, 0.4 + seed / 10) for library in ("rljax", "trl") for seed in range(3)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    word_problems.main(["--out", str(tmp_path / "results.jsonl"), "--figure", str(tmp_path / "both.png")])
    assert (tmp_path / "both.png").stat().st_size > 10_000
