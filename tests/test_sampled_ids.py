"""Ids travel with the text: what is learned from a file is what was sampled, also where the text does not show it."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_folder

from configs import common, gsm8k_tiny
from experiments import collect
from rljax import tasks
from rljax.errors import UserError
from rljax.evaluation import samples as evaluation_samples
from rljax.planning import lowering
from rljax.tasks import batches, rejection_sampling, response_text, stage_data
from rljax.text import ByteTokenizer
from rljax.training.run import resolve

TOKENIZER = tiny_folder.tokenizer()
THINK, END_OF_THOUGHT, END_OF_TURN, END_OF_TEXT = (
    TOKENIZER.token(text) for text in ("<think>", "</think>", "<|im_end|>", "<|endoftext|>")
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    here = tmp_path_factory.mktemp("ids")
    rows = [{"question": f"What is {n} and one?", "answer": str(n + 1)} for n in range(200)]
    (here / "own.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    c = gsm8k_tiny.get_config(f"datasets={here / 'own.jsonl'},short")
    c.task.options.update(dict(template="own", decontaminate=0, data_dir=str(here), max_response=48, prompt_slots=128))
    c.model = common.base().model
    c.weights, c.stages, c.workers = str(tiny_folder.make(here / "model")), ("rl",), 0
    c.rl.update(dict(start="weights", max_new_tokens=16, widths=()))
    return c


@pytest.fixture(scope="module")
def task(config):
    return resolve(config).task


def sample_of(task, index, ids):
    """The sample that an evaluation writes of one response with these ids, which end with a stop token."""
    problems = task.problems(0, np.asarray([index]), "train")
    columns = {
        "response": np.asarray([[ids]]),
        "mask": np.ones((1, 1, len(ids)), bool),
        "finished": np.ones((1, 1), bool),
        "logprobs": np.zeros((1, 1, len(ids))),
    }
    records = task.records(problems.facts)
    texts, attempts = evaluation_samples.decode_attempts(task, columns, records)
    (sample,) = evaluation_samples.make_samples(
        task, problems, records, np.ones((1, 1)), columns, texts, attempts, count=1
    )
    return sample | {"problem": index}


def read(task, path, lines, max_new_tokens=32):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    both = rejection_sampling.read_sample_batches(str(path), task, 0, max_new_tokens)
    learned = [row[mask].tolist() for part in both for row, mask in zip(part["tokens"], part["loss_mask"], strict=True)]
    return sorted(learned)


def ids_of(text, end):
    """The text between two control tokens, in letters: other ids than those that the tokenizer gives it."""
    letters = [i for letter in text for i in TOKENIZER.encode(letter)]
    assert letters != TOKENIZER.encode(text)
    return [THINK, *letters, END_OF_THOUGHT, *TOKENIZER.encode(text), end]


def test_sft_learns_the_ids_that_were_sampled_with_their_own_stop_token(task, tmp_path, caplog):
    """Sampled control tokens stay control tokens, and a response that ended with the second stop token ends so."""
    assert task.tokenizer.stop_ids == (END_OF_TURN, END_OF_TEXT)
    sampled = [ids_of("Ann has 12 clips", END_OF_TURN), ids_of("She has 37 clips", END_OF_TEXT)]
    lines, _ = rejection_sampling.filter_attempts(
        [sample_of(task, n, ids) for n, ids in enumerate(sampled)], rejection_sampling.AttemptFilter()
    )
    assert [line["tokens"] for line in lines] == sampled
    assert read(task, tmp_path / "kept.jsonl", lines) == sorted(sampled) and not caplog.text


def test_text_alone_is_encoded_and_a_warning_says_how_much_and_what_became_letters(task, tmp_path, caplog):
    sampled = [ids_of("Ann has 12 clips", END_OF_TURN), ids_of("She has 37 clips", END_OF_TEXT)]
    kept = [sample_of(task, n, ids) for n, ids in enumerate(sampled)]
    lines, _ = rejection_sampling.filter_attempts(kept, rejection_sampling.AttemptFilter())
    del lines[0]["tokens"]
    learned = read(task, tmp_path / "kept.jsonl", lines)
    assert sampled[1] in learned and sampled[0] not in learned
    assert not any({THINK, END_OF_THOUGHT} & set(ids) for ids in learned if ids != sampled[1])
    assert "1 of 2 lines of" in caplog.text and "have no tokens: their text is encoded" in caplog.text
    said = "'<think>', '</think>' in 1 of them (the first is line 1) is learned as letters, not as a control token"
    assert said in caplog.text


def test_demonstrations_of_own_data_whose_control_tokens_become_letters_are_counted_once(tmp_path, caplog):
    rows = [{"question": f"What is {n} and 1?", "answer": f"It is more. #### {n + 1}"} for n in range(60)]
    for n in (7, 9, 30):
        rows[n]["answer"] = f"<think>It is</think> #### {n + 1}"
    for name, some in (("train", rows), ("test", rows[:2])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    options = dict(datasets=str(tmp_path), own_data_dir=str(tmp_path / "data"), decontaminate=0, prompt_slots=64)
    task = tasks.make_task("questions", TOKENIZER, **options)
    stage_data.sft_batches(stage_data.SFTData(), task, 0)
    assert "sft: " in caplog.text and caplog.text.count("as letters, not as a control token") == 1
    assert "'<think>', '</think>' in 3 of them (the first is line 8)" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": []}, r'line 2 of .*"tokens" must be a list of ids below'),
        ({"tokens": "12"}, "must be a list of ids below"),
        ({"tokens": [True, END_OF_TURN]}, "must be a list of ids below"),
        ({"tokens": [10**6, END_OF_TURN]}, "must be a list of ids below"),
        ({"tokens": [*TOKENIZER.encode("She has 37 clips"), THINK]}, "none of the stop tokens"),
        ({"response": "She has 38 clips"}, 'say another text than "response".*Take "tokens" out'),
        ({"tokens": [*[TOKENIZER.encode(" ")[0]] * 40, END_OF_TURN], "response": " " * 40}, "41 tokens .* more than"),
    ],
    ids=str,
)
def test_tokens_that_do_not_fit_are_refused_in_one_line(change, words, task, tmp_path):
    good = {"index": 0, "response": "Ann has 12", "tokens": [*TOKENIZER.encode("Ann has 12"), END_OF_TURN]}
    text = "She has 37 clips"
    other = {"index": 1, "response": text, "tokens": [*TOKENIZER.encode(text), END_OF_TURN]}
    read(task, tmp_path / "some.jsonl", [good, other])
    with pytest.raises(UserError, match=words) as e:
        read(task, tmp_path / "some.jsonl", [good, other | change])
    assert "\n" not in str(e.value)


def test_each_of_several_stop_tokens_ends_a_response_that_the_verifier_reads_as_finished(task):
    body = TOKENIZER.encode("She has 37 clips")
    for end in task.tokenizer.stop_ids:
        assert response_text(TOKENIZER, np.asarray([*body, end]), True) == "She has 37 clips<eos>"
    assert not response_text(TOKENIZER, np.asarray(body), False).endswith("<eos>")


def test_bytes_that_are_no_text_are_learned_as_they_were_sampled():
    """A text shows each of them as the same character, so that the text alone would be learned as other bytes."""
    tokenizer = ByteTokenizer()
    ids = [*b"so ", 0xC2, 0xFF, *b" 7", tokenizer.eos]
    text = response_text(tokenizer, np.asarray(ids), True).removesuffix("<eos>")
    assert tokenizer.encode(text) != ids[:-1]
    line = {"index": 0, "response": text, "tokens": ids}
    task = dataclasses.replace(tasks.make_task("shop"), tokenizer=tokenizer)
    assert rejection_sampling.read_response_ids(line, task, tokenizer.eos, "line 1") == ids


def test_collect_writes_the_sampled_ids_beside_each_text_up_to_what_ended_it(config, tmp_path, monkeypatch):
    """Every attempt is called right here: a random model has none that is."""
    monkeypatch.setattr(
        rejection_sampling,
        "filter_attempts",
        lambda attempts, keep, known_ids, filter_attempts=rejection_sampling.filter_attempts: filter_attempts(
            [a | {"reward": 1.0, "response": a["response"].removesuffix("<eos>") + "<eos>"} for a in attempts],
            keep,
            known_ids,
        ),
    )
    config = config.copy_and_resolve_references()
    config.task.options.stop_strings = ("e", "a", "o", "t", "1", "n")
    (tmp_path / "config.json").write_text(json.dumps({"config": json.loads(json.dumps(config.to_dict()))}))
    forced = config.copy_and_resolve_references()
    forced.eval.budget.update(dict(limit=4, answer=""))  # of evaluations: what is learned is the policy's own
    collect.run(forced, tmp_path, stage="weights", to=str(tmp_path / "kept.jsonl"), problems=4, attempts=4)
    lines = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().split("\n") if line]
    assert lines and all(len(line["tokens"]) == line["length"] for line in lines)
    assert all(max(line["tokens"]) < TOKENIZER.size for line in lines)
    ended = [line for line in lines if line["response"].endswith(config.task.options.stop_strings)]
    assert len(ended) >= 4 and not any("e" in line["response"][:-1] for line in lines)
    run = resolve(config)
    learned = read(run.task, tmp_path / "again.jsonl", ended)
    assert learned == sorted(line["tokens"] for line in ended)
    stops = run.task.stops
    assert stops is run.rl.sampling.stop_strings is lowering.evaluation_sampling(run)[1].stop_strings


@pytest.mark.parametrize("name", ["kept.json", "kept"])
def test_a_file_to_collect_into_ends_in_jsonl_because_its_record_stands_beside_it(config, tmp_path, name):
    with pytest.raises(UserError, match="the file must end in .jsonl"):
        collect.run(config, tmp_path, to=str(tmp_path / name))


def test_control_tokens_in_a_text_file_are_told_to_be_ordinary_text(tmp_path, caplog):
    (tmp_path / "text.txt").write_text("She has <think> 12 clips </think>. " * 100)
    ids, _ = batches.read_text_file(str(tmp_path / "text.txt"), TOKENIZER, 8)
    assert THINK not in ids and "'<think>', '</think>' in" in caplog.text
