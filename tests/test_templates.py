"""Prompts word for word, and what a demonstration looks like in each template."""

import pytest

from rljax.errors import UserError
from rljax.text import templates
from rljax.text.templates import TEMPLATES
from rljax.verifiers import answers, tag_format


def test_r1_zero_is_the_papers_table_word_for_word():
    assert TEMPLATES["r1_zero"].format_prompt("1+1?") == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first "
        "thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning process and "
        "answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process "
        "here </think> <answer> answer here </answer>. User: 1+1? Assistant:"
    )
    assert TEMPLATES["r1_zero_dot"].format_prompt("Why").endswith("User: Why. Assistant:")


def test_oat_begins_the_thought_for_the_model():
    oat = TEMPLATES["oat"]
    assert oat.format_prompt("Why?").endswith("\nUser: Why?\nAssistant: <think>") and oat.prefill == "<think>"


def test_chat_templates_ask_for_a_box():
    for name in ("qwen_math", "chat"):
        asked = TEMPLATES[name].format_prompt("Why?")
        assert "\\boxed{}" in asked and asked.endswith("<|im_end|>\n<|im_start|>assistant\n") and "Why?" in asked


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_demonstration_in_any_template_verifies_and_an_unfinished_thought_does_not(name):
    template = TEMPLATES[name]
    for solution in ("3 and 4 is 7.", ""):
        said = template.prefill + template.format_response(solution, "7")
        assert answers.verify(said, "7") and not answers.verify(said, "8")
    assert template.prompt.endswith(template.prefill)
    if name in ("r1_zero", "oat"):
        assert tag_format.format_reward(template.prefill + template.format_response("3 and 4 is 7.", "7")) == 1
        assert not answers.verify(template.prefill + "so <think> \\boxed{7}", "7")


def test_braces_in_a_question_are_left_alone():
    assert TEMPLATES["plain"].format_prompt("{answer} {0} {question}") == "Question: {answer} {0} {question}\nAnswer: "


def test_a_template_of_ones_own_is_a_text_with_a_place_for_the_question():
    assert templates.find_template("Q: {question}\nA:").format_prompt("Why?") == "Q: Why?\nA:"
    with pytest.raises(UserError, match=r"r1_zero.*\{question\}"):
        templates.find_template("r1zero")


def test_the_exact_strings_are_there_for_the_log():
    assert templates.template_strings({"template": "oat"}) == TEMPLATES["oat"]._asdict()
    assert templates.template_strings({"items": 3}) is None
