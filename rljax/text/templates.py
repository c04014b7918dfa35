r"""Prompt templates by name: the exact strings around a question, and around the answer of a demonstration.

A template is chosen by name, or written out: any text with ``{question}`` in it is a template. The choice changes the accuracy
of a base model by tens of points. So the exact strings are recorded in ``config.json``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rljax.errors import UserError


class Template(NamedTuple):
    """The strings of a prompt and of a response. The prompt ends with ``prefill``, the beginning of the response."""

    prompt: str  # "... {question} ..."
    response: str  # "... {solution} ... {answer} ...": a demonstration, without ``prefill``
    prefill: str = ""  # the verifier reads prefill + response

    def format_prompt(self, question: str) -> str:
        """The prompt that asks this question."""
        return self.prompt.replace("{question}", question)

    def format_response(self, solution: str, answer: str) -> str:
        """A demonstration with this solution and answer; without a solution where it is empty."""
        return "".join(part for part, _ in self.response_parts(solution, answer))

    def response_parts(self, solution: str, answer: str) -> list[tuple[str, bool]]:
        """``format_response`` in parts (text, trusted): only the template's own words may contain control tokens."""
        before, _, rest = self.response.partition("{solution}")
        between, _, after = rest.partition("{answer}")
        between = between if solution else between.lstrip()
        return [(before, True), (solution, False), (between, True), (answer, False), (after, True)]


R1_PREAMBLE = (  # DeepSeek-R1, arXiv 2501.12948v1, Table 1
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first "
    "thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning process and "
    "answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process "
    "here </think> <answer> answer here </answer>."
)
R1_RESPONSE = "<think> {solution} </think> <answer> {answer} </answer>"
STEP_BY_STEP = r"Please reason step by step, and put your final answer within \boxed{}."

TEMPLATES = {
    "plain": Template("Question: {question}\nAnswer: ", "{solution}\n#### {answer}"),
    "r1_zero": Template(f"{R1_PREAMBLE} User: {{question}} Assistant:", f" {R1_RESPONSE}"),
    # The printed table has "prompt.": it is unclear whether the dot belongs to the template, so both are here.
    "r1_zero_dot": Template(f"{R1_PREAMBLE} User: {{question}}. Assistant:", f" {R1_RESPONSE}"),
    # Oat-zero (understand-r1-zero), train_zero_math.py: a newline before each turn, and <think> is already written
    "oat": Template(
        f"{R1_PREAMBLE}\nUser: {{question}}\nAssistant: <think>", R1_RESPONSE.removeprefix("<think>"), "<think>"
    ),
    # Oat-zero's qwen_math: Qwen2.5-Math's own chat markup
    "qwen_math": Template(
        f"<|im_start|>system\n{STEP_BY_STEP}<|im_end|>\n<|im_start|>user\n{{question}}<|im_end|>\n<|im_start|>assistant\n",
        "{solution}\n\\boxed{{answer}}",
    ),
    "chat": Template(
        f"<|im_start|>user\n{{question}}\n{STEP_BY_STEP}<|im_end|>\n<|im_start|>assistant\n",
        "<think>\n{solution}\n</think>\n\n\\boxed{{answer}}",
    ),
    # The form of chain-of-thought prompts (Wei et al., arXiv 2201.11903): a response of one line
    "qa": Template("Q: {question}\nA: ", "{solution} The answer is {answer}."),
    "none": Template("{question}", "{solution}\n#### {answer}"),  # Oat-zero's "no": the bare question
}


def find_template(name: str) -> Template:
    """The template of this name, or the one that is written out. Raises UserError for anything else."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    if "{question}" in name:
        return TEMPLATES["plain"]._replace(prompt=name)
    raise UserError(f"template={name!r}: choose from {sorted(TEMPLATES)}, or write a text that contains {{question}}")


def template_strings(options: Mapping[str, Any]) -> dict[str, str] | None:
    """The strings of the template that a task with these options uses; None for a task without a template."""
    return find_template(options["template"])._asdict() if "template" in options else None
