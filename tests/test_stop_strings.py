"""Stop strings end a response where they are completed, also across tokens, as a search in its text would."""

import dataclasses
import functools
import itertools

import coins
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import made

from rljax import sampler, transformer
from rljax.errors import UserError
from rljax.evaluation import sample_in_parts
from rljax.structs import Problems
from rljax.tasks import check, rejection_sampling, response_text
from rljax.tasks.task import check_fields
from rljax.text import ByteTokenizer, FolderTokenizer, SymbolTokenizer, find_stop_strings
from rljax.text.hf_files import tokenizer_files

WORDS = SymbolTokenizer(("so", "some", "+", "same", ".", "$"), numbers=3)
BYTES = ByteTokenizer()
FOLDERS = ("byte level", "gemma", "llama2", "known marks", "stripping")
TOKENIZERS = {"bytes": BYTES} | {name: made(name)[0] for name in FOLDERS}


# Where a response ends


def usual_ids(tokenizer) -> list[int]:
    """Ids of tokens. With byte fallback without the bytes that alone are no text: ``decode`` shows what is beside them otherwise."""
    fallback = tokenizer in (TOKENIZERS["gemma"], TOKENIZERS["llama2"])
    return [
        i for i, b in enumerate(tokenizer.token_bytes) if b and not (fallback and tokenizer.decode([i]) == "\ufffd")
    ]


def sampled_ids(tokenizer) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(usual_ids(tokenizer)), min_size=1, max_size=30)


def text_behind_a_prompt(tokenizer, ids) -> str:
    """The text of ids behind the letter x: some tokenizers leave out a space that begins a text."""
    anchor = tokenizer.encode("x")
    return tokenizer.decode([*anchor, *ids]).removeprefix(tokenizer.decode(anchor))


def parts_of(text: str) -> st.SearchStrategy[str]:
    """Texts that occur in this one, and texts that begin like one."""
    places = st.tuples(st.integers(0, len(text)), st.integers(1, 6), st.sampled_from(["", "", "a", "\n"]))
    return places.map(lambda p: (text[p[0] : p[0] + p[1]] + p[2]).replace("\ufffd", "") or "q")


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_response_ends_with_the_token_in_which_a_search_of_its_text_finds_a_stop_string(name, data):
    tokenizer = TOKENIZERS[name]
    ids = data.draw(sampled_ids(tokenizer))
    strings = data.draw(st.lists(parts_of(text_behind_a_prompt(tokenizer, ids)), min_size=1, max_size=4))
    stops = find_stop_strings(tokenizer, strings)
    searched = (text_behind_a_prompt(tokenizer, ids[:n]) for n in range(1, len(ids) + 1))
    expected = next((n for n, text in enumerate(searched, 1) if any(s in text for s in strings)), None)
    assert stops.find_end(ids) == expected
    if expected:
        text = text_behind_a_prompt(tokenizer, ids[:expected])
        first = min(text.find(s) + len(s) for s in strings if s in text)
        assert stops.count_overhang(ids[:expected]) == len(text) - first
        count, rest = stops.count_before(ids[:expected])
        longest = max(len(s) for s in strings if text[:first].endswith(s))
        assert text_behind_a_prompt(tokenizer, ids[:count]) + rest == text[: first - longest]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, WORDS.size - 1), max_size=25), st.data())
def test_a_stop_string_of_words_is_found_as_whole_words(ids, data):
    one = st.lists(st.integers(0, WORDS.size - 1), min_size=1, max_size=3)
    patterns = data.draw(st.lists(one, min_size=1, max_size=4))
    stops = find_stop_strings(WORDS, [WORDS.decode(p) for p in patterns])
    ends = (n for n in range(1, len(ids) + 1) if any(ids[max(n - len(p), 0) : n] == p for p in patterns))
    assert stops.find_end(ids) == next(ends, None)
    assert find_stop_strings(WORDS, ["so"]).find_end(WORDS.encode("some 3 so")) == 3


def test_ids_beyond_the_vocabulary_have_no_text_and_interrupt_nothing():
    stops = find_stop_strings(BYTES, ["ab"])
    assert stops.find_end([97, 300, 98]) == 3 and stops.find_end([97, BYTES.pad, 98]) is None


@pytest.mark.parametrize("name", FOLDERS)
def test_the_bytes_of_tokens_are_the_text_that_decode_shows(name):
    tokenizer, known = TOKENIZERS[name], TOKENIZERS[name].token_bytes
    rng, anchor = np.random.default_rng(0), tokenizer.encode("x")
    for _ in range(200):
        ids = rng.choice(usual_ids(tokenizer), size=8).tolist()
        assert tokenizer.decode([*anchor, *ids]) == "x" + b"".join(known[i] for i in ids).decode(errors="replace")
    if name in ("gemma", "llama2"):  # a character in bytes
        ids = [tokenizer._core.library.token_to_id(f"<0x{byte:02X}>") for byte in "é".encode()]
        assert tokenizer.decode(ids) == "é" and b"".join(known[i] for i in ids).decode() == "é"


@pytest.mark.parametrize(
    "tokenizer, strings, said",
    [
        (BYTES, "ab", "must be a tuple of texts"),
        (BYTES, ("ab", ""), "none of them empty"),
        (BYTES, ("ab", "\ud83c"), r"'\\ud83c' has half a character"),
        (BYTES, ("a" * 200, "b" * 56), "256 letters, at most 255 in all"),
        (WORDS, ("so 3", "sum"), "'sum' is not in this task's vocabulary"),
        (WORDS, ("so", "\n\n"), r"'\\n\\n' has no word of this vocabulary"),
    ],
    ids=str,
)
def test_what_is_no_stop_string_is_told_in_one_line(tokenizer, strings, said):
    with pytest.raises(UserError, match=said) as e:
        find_stop_strings(tokenizer, strings)
    assert "\n" not in str(e.value)


def test_a_tokenizer_whose_tokens_depend_on_their_neighbours_has_no_stop_strings():
    exported = FolderTokenizer(tuple(tokenizer_files(WORDS).items()))
    with pytest.raises(UserError, match="decoder WordPiece of this tokenizer writes a token in different ways"):
        find_stop_strings(exported, ("so",))


# The sampler

B, G, P, T = 6, 4, 3, 24
MODEL = transformer.Config(
    vocab_size=WORDS.size + 2, width=16, heads=2, kv_heads=2, head_width=8, ff_width=24, layers=1
)
PROMPT = jax.random.randint(jax.random.key(1), (B, P), 3, WORDS.size)
MASK = jnp.arange(P) >= jnp.array([0, 1, 2, 0, 1, 0])[:, None]
STOPS = find_stop_strings(WORDS, [f"{a} {b}" for a, b in itertools.product(("so", "some", "+", "1"), (".", "2", "so"))])


@functools.cache
def params():
    return jax.jit(transformer.init, static_argnums=0)(MODEL, jax.random.key(0))


def draw(stops=STOPS, slots=0, **more):
    asked = dict(group_size=G, max_new_tokens=T, stop_ids=(2,), slots=slots) | more
    table = stops and stops.table
    return jax.device_get(sampler.sample(params(), MODEL, PROMPT, MASK, jax.random.key(2), stop_table=table, **asked))


HOW = {
    "sampled": {},
    "at half the slots": dict(slots=B * G // 2),
    "in one slot, from a truncated distribution": dict(slots=1, top_k=8, keep_sampling_mask=True),
    "greedy, with a limit": dict(greedy=True, group_size=1, limit=9),
}


@pytest.mark.parametrize("name", HOW)
def test_a_row_is_what_it_would_be_without_stop_strings_up_to_the_token_that_completes_one(name):
    how = HOW[name]
    free, ended = draw(None, **how | dict(slots=0)), draw(**how)
    for ids, length, kept in zip(free.response, free.lengths, ended.lengths, strict=True):
        assert kept == (STOPS.find_end(ids[:length]) or length)
    live = np.arange(T) < ended.lengths[:, None]
    np.testing.assert_array_equal(ended.mask, live)
    np.testing.assert_array_equal(ended.response, np.where(live, free.response, 0))
    np.testing.assert_allclose(ended.logprobs, np.where(live, free.logprobs, 0), atol=1e-5)
    stopped = np.asarray([STOPS.find_end(ids[:n]) == n for ids, n in zip(ended.response, ended.lengths, strict=True)])
    np.testing.assert_array_equal(ended.finished, stopped | (free.finished & (ended.lengths == free.lengths)))
    if how.get("keep_sampling_mask"):
        np.testing.assert_array_equal(ended.sampling_mask, np.where(live[..., None], free.sampling_mask, 0))


def test_many_of_these_rows_end_with_a_stop_string_and_some_with_the_stop_token():
    rollout = draw()
    last = rollout.response[np.arange(B * G), rollout.lengths - 1]
    assert rollout.finished[last == 2].all() and (last == 2).sum() >= 3
    assert (rollout.finished & (last != 2)).sum() >= 6 and (rollout.lengths > 2).any()


def test_attempts_that_are_sampled_in_parts_are_those_of_one_call():
    settings = sampler.Sampling(group_size=6, max_new_tokens=T, stop_ids=(2,), stop_strings=STOPS)
    asked = Problems(PROMPT[:1], MASK[:1], ())
    some, whole = (sample_in_parts(settings, MODEL, params(), asked, jax.random.key(5), rows) for rows in (4, 6))
    np.testing.assert_array_equal(some.response, whole.response)
    assert (some.mask == whole.mask).all() and some.finished.any() and not some.mask.all()


def test_vmapped_runs_end_where_each_of_them_ends():
    layout = dataclasses.replace(MODEL.layout, run_axis="runs")
    model = dataclasses.replace(MODEL, layout=layout)
    keys = jax.random.split(jax.random.key(3), 2)
    one = lambda key, model=MODEL: sampler.sample(
        params(), model, PROMPT, MASK, key, group_size=G, max_new_tokens=T, stop_ids=(2,), stop_table=STOPS.table
    )
    runs = jax.vmap(functools.partial(one, model=model), axis_name="runs")(keys)
    for n, key in enumerate(keys):
        alone = one(key)
        np.testing.assert_array_equal(runs.response[n], alone.response)
        np.testing.assert_array_equal(runs.mask[n], alone.mask)
        np.testing.assert_array_equal(runs.finished[n], alone.finished)


# What is read of a response, and what is learned from


def test_the_text_of_a_response_ends_behind_the_stop_string_whatever_else_its_last_token_holds():
    tokenizer = TOKENIZERS["byte level"]
    stops = find_stop_strings(tokenizer, ("48 o",))
    ids = np.asarray(tokenizer.encode("to 48 of her"))
    ids = ids[: stops.find_end(ids)]
    assert tokenizer.decode(ids) == "to 48 of" and response_text(tokenizer, ids, True, stops) == "to 48 o<eos>"
    assert response_text(tokenizer, ids, False, stops) == "to 48 of"
    ended = np.asarray([*tokenizer.encode("to 48"), tokenizer.eos])
    assert response_text(tokenizer, ended, True, stops) == "to 48<eos>"
    words = np.asarray(WORDS.encode("some so ."))
    assert response_text(WORDS, words, True, find_stop_strings(WORDS, ("so .",))) == "some so. <eos>"


def test_a_file_of_attempts_may_hold_some_that_a_stop_string_ended():
    task = dataclasses.replace(coins.make(coins.Options()), stop_strings=("answer 7",))
    ids = task.tokenizer.encode("3 + 4 = 7 answer 7")
    line = {"index": 0, "response": response_text(task.tokenizer, np.asarray(ids), True, task.stops), "tokens": ids}
    assert rejection_sampling.read_response_ids(line, task, task.tokenizer.eos, "line 1") == ids
    with pytest.raises(UserError, match="none of the stop tokens .* and completes none of stop_strings"):
        rejection_sampling.read_response_ids(line | {"tokens": ids[:-1]}, task, task.tokenizer.eos, "line 1")
    with pytest.raises(UserError, match="none of the stop tokens"):  # nothing is learned behind a stop string
        rejection_sampling.read_response_ids(line | {"tokens": [*ids, ids[0]]}, task, task.tokenizer.eos, "line 1")


def test_a_demonstration_may_end_with_a_stop_string_before_its_stop_token_but_not_hold_one_inside():
    world = coins.make(coins.Options())
    few = dict(num_problems=64, train_draws=200)
    at_the_end = dataclasses.replace(world, stop_strings=tuple(f"answer {n}" for n in range(41)))
    report = check.check_task(at_the_end, **few)
    assert report.faults == [] and int(dict(report.rows)["right: cut off demonstration"].split()[0]) > 20
    inside = dataclasses.replace(world, stop_strings=("=",))
    assert any(
        "demonstrations hold one of stop_strings=('=',) inside" in f for f in check.check_task(inside, **few).faults
    )
    with pytest.raises(UserError, match="task coins: stop_strings='='"):
        check_fields(dataclasses.replace(world, stop_strings="="))
