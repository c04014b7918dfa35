"""Against transformers, live: what a folder's tokenizer and chat template make of a text; and our own tokenizers, exported."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_folder
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rljax import tasks
from rljax.tasks import prompting
from rljax.text import ByteTokenizer, hf_files, render_chat

TEXTS = (
    "Ann has 12 clips and gets 25 more. How many?",
    "two  spaces\n\n\ttabs, and a lone  ",
    "naïve café 数学 2 + 2 👩‍🚀",
    "",
)
TALK = [
    {"role": "system", "content": "You count."},
    {"role": "user", "content": "  How many? <|im_end|> "},
    {"role": "assistant", "content": "<think>12+25</think>37"},
    {"role": "user", "content": "Sure?"},
]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tiny_folder.make(tmp_path_factory.mktemp("text") / "model")
    # not AutoTokenizer: for some model types that one builds a tokenizer of its own, whatever tokenizer.json says
    return tiny_folder.tokenizer(), PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_tokenised_as_transformers_does(both, text):
    ours, theirs = both
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("length", range(1, len(TALK) + 1))
@pytest.mark.parametrize("prompt", [True, False])
def test_a_conversation_is_rendered_as_transformers_does(both, length, prompt):
    ours, theirs = both
    about = dict(bos_token=ours.bos_token, eos_token=ours.eos_token, add_generation_prompt=prompt)
    expected = theirs.apply_chat_template(TALK[:length], tokenize=False, add_generation_prompt=prompt)
    assert render_chat(ours.chat_template, TALK[:length], **about) == expected


@pytest.mark.parametrize("question", [t for t in TEXTS if t and t.strip() == t])
def test_a_prompt_in_the_models_own_words_has_transformers_ids(both, question):
    ours, theirs = both
    words = prompting.make_prompt_format("own", ours)
    asked = [{"role": "user", "content": words.template.prompt.split("\n")[1].replace("{question}", question)}]
    asked[0]["content"] += "\n" + words.template.prompt.split("\n")[2].removesuffix("<|im_end|>")
    expected = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert words.prompt_ids(question) == list(expected)


@pytest.mark.parametrize("name", ["shop", "fruit", "cups", "countdown", "bytes"])
def test_our_own_tokenizers_are_the_same_in_transformers(name, tmp_path):
    task = None if name == "bytes" else tasks.make_task(name)
    ours = ByteTokenizer() if task is None else task.tokenizer
    for file, text in hf_files.tokenizer_files(ours).items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = list(TEXTS)
    if task is not None:
        records = task.records(task.problems(0, jnp.arange(20), "train").facts)
        texts = [task.demonstration(r, np.random.default_rng(0)) for r in records]
    for text in texts:
        ids = ours.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids) == ours.decode(ids)
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.pad_token_id) == (ours.eos, ours.bos, ours.pad)
