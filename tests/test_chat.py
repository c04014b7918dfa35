"""Chat templates give the strings that transformers 5.23's apply_chat_template gave, and fail in one line."""

import datetime
import enum

import numpy as np
import pytest

from rljax.errors import UserError
from rljax.text import render_chat

CHATML = """\
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
LLAMA = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n" }}
{%- for tool in tools or [] %}
    {{- tool | tojson(indent=2) }}
    {{- "\\n\\n" }}
{%- endfor %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}"
    "{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{%- endif %}"
    "{%- if message['role'] == 'assistant' %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif %}"
    "{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
ASK = [{"role": "user", "content": " What is 2+2? \n"}]
TALK = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": '1 < 2 & "é"?'},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
    {"role": "user", "content": "Sure?"},
]
TOOL = [{"type": "function", "function": {"name": "f", "description": "<é> & 'x'"}}]
DATED = {"bos_token": "<|begin_of_text|>", "date_string": "26 Jul 2024"}
BEGIN = {"bos_token": "<｜begin▁of▁sentence｜>"}
HEAD = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n"


def test_chatml_gives_the_string_of_transformers():
    assert render_chat(CHATML, ASK) == (
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n What is 2+2? \n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert render_chat(CHATML, TALK, add_generation_prompt=False) == (
        '<|im_start|>system\n Be brief. <|im_end|>\n<|im_start|>user\n1 < 2 & "é"?<|im_end|>\n'
        "<|im_start|>assistant\n<think>\nhm\n</think>\n\nyes<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
    )
    silent = render_chat(CHATML, ASK, enable_thinking=False)
    assert silent.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_gemma_trims_and_gives_the_string_of_transformers():
    assert render_chat(GEMMA, ASK, bos_token="<bos>") == (
        "<bos><start_of_turn>user\nWhat is 2+2?<end_of_turn>\n<start_of_turn>model\n"
    )
    assert render_chat(GEMMA, TALK[1:], bos_token="<bos>", add_generation_prompt=False) == (
        '<bos><start_of_turn>user\n1 < 2 & "é"?<end_of_turn>\n<start_of_turn>model\n<think>\nhm\n</think>\n\nyes'
        "<end_of_turn>\n<start_of_turn>user\nSure?<end_of_turn>\n"
    )


def test_llama_gives_the_string_of_transformers_with_its_date_and_tools():
    assert render_chat(LLAMA, TALK, **DATED) == (
        f"{HEAD}Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        '1 < 2 & "é"?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n<think>\nhm\n</think>\n\nyes<|eot_id|>'
        "<|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert render_chat(LLAMA, ASK, tools=TOOL, add_generation_prompt=False, **DATED) == (
        f'{HEAD}{{\n  "type": "function",\n  "function": {{\n    "name": "f",\n    "description": "<é> & \'x\'"\n  }}\n}}\n\n'
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhat is 2+2?<|eot_id|>"
    )


def test_a_template_may_ask_for_the_date():
    year = str(datetime.datetime.now().year)
    assert year in render_chat(LLAMA, ASK) or str(int(year) + 1) in render_chat(LLAMA, ASK)


def test_r1_begins_the_thought_and_forgets_earlier_ones_as_in_transformers():
    assert render_chat(R1, ASK, **BEGIN) == "<｜begin▁of▁sentence｜><｜User｜> What is 2+2? \n<｜Assistant｜><think>\n"
    assert render_chat(R1, TALK, add_generation_prompt=False, **BEGIN) == (
        '<｜begin▁of▁sentence｜> Be brief. <｜User｜>1 < 2 & "é"?<｜Assistant｜>\n\nyes<｜end▁of▁sentence｜><｜User｜>Sure?'
    )


@pytest.mark.parametrize(
    "template, messages, expected",
    [
        (
            "  {% for m in messages %}\n    {% if m.role %}\n{{ m.content }}\n    {% endif %}\n  {% endfor %}\nend \n",
            TALK,
            ' Be brief. \n1 < 2 & "é"?\n<think>\nhm\n</think>\n\nyes\nSure?\nend ',
        ),
        (
            "{% set x = 1 %}{% for m in messages %}{% generation %}{{ loop.index }}{% set x = 2 %}{{ m.role }}"
            "{% endgeneration %}\n{% endfor %}{{ x }}",
            TALK,
            "1system2user3assistant4user1",
        ),
        (
            "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}"
            "{% if loop.index == 4 %}{% break %}{% endif %}{{ m.role }};{% endfor %}",
            TALK,
            "system;assistant;",
        ),
        ("{{ bos_token is defined }}{{ bos_token }}{{ documents }}{{ tools }}", ASK, "FalseNoneNone"),
        (
            "{% for m in messages %}{{ m.content is defined }}{{ m.thinking }}{{ m.reasoning_content }}{% endfor %}",
            [{"role": "assistant", "content": None, "reasoning": "why"}],
            "Falsewhywhy",
        ),
        (
            "{{ messages[0] | tojson }}{{ messages | tojson(indent=1, sort_keys=True) }}",
            TALK[1:2],
            '{"role": "user", "content": "1 < 2 & \\"é\\"?"}'
            '[\n {\n  "content": "1 < 2 & \\"é\\"?",\n  "role": "user"\n }\n]',
        ),
        ("{{ dict(a=1) }}{{ dict.fromkeys([1, 2], 3) }}", ASK, "{'a': 1}{1: 3, 2: 3}"),
        ("{% set ns = namespace(self=1) %}{{ ns.self }}", ASK, "1"),
    ],
    ids=["blanks", "generation", "loop controls", "no bos", "None and thoughts", "tojson", "dict", "namespace"],
)
def test_what_surrounds_a_template_is_what_transformers_has(template, messages, expected):
    assert render_chat(template, messages) == expected


def test_a_template_sees_plain_data_only():
    class Role(enum.StrEnum):
        USER = "user"

    message = {"role": Role.USER, "content": [1, np.float32(0.5), object()], "right": np.bool_(False)}
    shown = "{{ messages[0].role }} {{ messages[0].content }} {{ messages[0].right }} {{ extra }}"
    assert render_chat(shown, [message], extra=(True,)) == "user [1, 0.5, '<object>'] False (True,)"


@pytest.mark.parametrize(
    "template, said",
    [
        (GEMMA, "System role not supported"),
        ("{{ raise_exception('no\n good') }}", "no good"),
        ("\n{% if %}", r"Expected an expression.*line 2"),
        ("{{ ''.__class__.__mro__ }}", "__class__.*unsafe"),
        ("{{ messages.append(1) }}", "append.*unsafe"),
        ("{{ dict.update }}{{ dict.update(messages[0]) }}", "update"),
        ("{% set ns = namespace(_x=1) %}", "_x.*underscore"),
        ("{% set ns = namespace() %}{% set ns._x = 1 %}", "_x.*underscore"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ messages[0].foo.bar }}", "no attribute 'foo'"),
        ("{% for i in range(10000000) %}{% endfor %}", "Range too big"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_template_that_fails_is_an_error_of_one_line(template, said):
    with pytest.raises(UserError, match=f"^chat template: .*{said}") as e:
        render_chat(template, TALK)
    assert "\n" not in str(e.value)


def test_roles_that_a_template_refuses_are_an_error_of_one_line():
    with pytest.raises(UserError, match="roles must alternate"):
        render_chat(GEMMA, TALK[2:])


def test_a_conversation_without_messages_is_an_error():
    with pytest.raises(UserError, match="no message"):
        render_chat(CHATML, [])


def test_rendering_leaves_the_messages_as_they_were():
    talk = [dict(m, reasoning="why") for m in TALK]
    render_chat(CHATML, talk)
    assert talk == [dict(m, reasoning="why") for m in TALK]
