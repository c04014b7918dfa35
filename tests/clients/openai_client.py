"""The ``openai`` package, unchanged, as a client."""

import openai
import pytest

PROMPT = "Ben pays 9 for two of 7 6 10 1 8?"
MODEL = "toy/rl@7"
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}v1", api_key="none", max_retries=0, timeout=300)


def test_models_are_listed(client):
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def test_completions_with_choices_logprobs_and_a_seed(client):
    how = dict(model=MODEL, prompt=PROMPT, n=3, max_tokens=12, logprobs=2, seed=4)
    first, again = client.completions.create(**how), client.completions.create(**how)
    assert [c.text for c in first.choices] == [c.text for c in again.choices]
    told = first.choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) > 0
    assert first.usage.completion_tokens > 0


def test_a_completion_as_a_stream(client):
    how = dict(model=MODEL, prompt=PROMPT, max_tokens=20, seed=4)
    whole = client.completions.create(**how).choices[0].text
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**how, stream=True)) == whole


def test_a_chat_with_stop_and_logprobs(client):
    how = dict(model=MODEL, messages=MESSAGES, max_tokens=20, seed=4)
    found = client.chat.completions.create(**how, logprobs=True, top_logprobs=3, n=2)
    assert found.choices[1].message.role == "assistant" and len(found.choices[0].logprobs.content[0].top_logprobs) == 3
    word = found.choices[0].message.content.split()[3]
    stopped = client.chat.completions.create(**how, n=2, stop=[word]).choices[0]
    assert stopped.finish_reason == "stop" and word not in stopped.message.content.split()


def test_a_chat_as_a_stream(client):
    how = dict(model=MODEL, messages=MESSAGES, max_tokens=20, seed=4)
    whole = client.chat.completions.create(**how).choices[0].message.content
    with client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}) as chunks:
        parts = list(chunks)
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == whole
    assert parts[-1].usage.prompt_tokens == 13


def test_errors_are_those_of_the_package(client):
    with pytest.raises(openai.NotFoundError, match="there is no policy"):
        client.completions.create(model="gpt-4", prompt=PROMPT)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model=MODEL, prompt=PROMPT, temperature=99)
