"""How a question becomes a prompt, and its solution a response: a template and a tokenizer together.

``template="own"`` is the chat template that came with the model. It is rendered once, with a place for the question in it,
so that the exact string is known and logged; what the question says never becomes a control token.
"""

import dataclasses
from typing import Any

from rljax import text
from rljax.errors import UserError
from rljax.text import FolderTokenizer, Tokenizer, templates
from rljax.text.hf_tokenizer import load as load_tokenizer
from rljax.text.templates import Template

MODEL_TEMPLATE = "own"
PLACEHOLDER = "{question}"
TEMPLATE_DATE = (
    "26 Jul 2024"  # where a template says one (Llama 3's own, where it has no clock): a run goes on as it began
)
THINKING_RESPONSE = "<think>\n{solution}\n</think>\n\n\\boxed{{answer}}"
PLAIN_RESPONSE = "{solution}\n\\boxed{{answer}}"


@dataclasses.dataclass(frozen=True)
class PromptFormat:
    template: Template
    tokenizer: Tokenizer
    end: int  # what a demonstration ends with
    chat: bool = False  # the template was written by a chat template: it has its own beginning

    def prompt_ids(self, question: str) -> list[int]:
        """The prompt that asks this question, with exactly one beginning."""
        before, *rest = self.template.prompt.split(PLACEHOLDER)
        parts = [(before, True)] + [part for after in rest for part in ((question, False), (after, True))]
        return self.tokenizer.join(parts) if self.chat else text.prompt_ids(self.tokenizer, parts)

    def response_ids(self, parts: list[tuple[str, bool]]) -> list[int]:
        """A demonstration in parts (text, trusted), with what ends it."""
        return [*self.tokenizer.join(parts), self.end]


def make_prompt_format(
    template: str,
    tokenizer: Tokenizer,
    instruction: str = templates.STEP_BY_STEP,
    system: str = "",
    thinking: bool = True,
) -> PromptFormat:
    """A template by name, or written out, or the tokenizer's own; the last three are for that one alone.

    Raises UserError for a name that is unknown, or a model that has no chat template or one that rewrites the question.
    """
    if template == MODEL_TEMPLATE:
        return model_prompt_format(tokenizer, instruction, system, thinking)
    found = templates.find(template)
    if isinstance(tokenizer, FolderTokenizer) and found.prompt.endswith(" "):
        # words of a learned vocabulary begin with their space: it belongs to the response
        found = found._replace(prompt=found.prompt.rstrip(" "), response=" " + found.response)
    return PromptFormat(found, tokenizer, tokenizer.eos)


def model_prompt_format(tokenizer: Tokenizer, instruction: str, system: str, thinking: bool) -> PromptFormat:
    if not isinstance(tokenizer, FolderTokenizer) or not tokenizer.chat_template:
        raise UserError(
            f"template={MODEL_TEMPLATE!r}: this model has no chat template, choose from {sorted(templates.TEMPLATES)} or write one"
        )
    write = tokenizer.chat_template
    about: Any = dict(bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token, enable_thinking=thinking)
    about["date_string"] = TEMPLATE_DATE

    def turn(question: str) -> list[dict[str, str]]:
        said = f"{question}\n{instruction}" if instruction else question
        return ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": said}]

    prompt = text.render(write, turn(PLACEHOLDER), add_generation_prompt=True, **about)
    probe = "Is 1 < 2 & \"3\" >= {x}?\n\n  Say 'yes'."
    if text.render(write, turn(probe), add_generation_prompt=True, **about) != prompt.replace(PLACEHOLDER, probe):
        raise UserError(
            f"template={MODEL_TEMPLATE!r}: the model's chat template rewrites what is asked; write the template out instead"
        )
    after = prompt.rpartition(PLACEHOLDER)[2]
    prefill = after[after.index("<think>") :] if "<think>" in after else ""
    thinks = "<think>" in write and "</think>" not in prefill
    response = THINKING_RESPONSE.removeprefix(prefill) if thinks else PLAIN_RESPONSE
    replied = text.render(
        write, [*turn("Q"), {"role": "assistant", "content": probe}], add_generation_prompt=False, **about
    )
    ends = tokenizer.encode(replied.rpartition(probe)[2], specials=True)
    end = next((i for i in ends if i in tokenizer.stop_ids), tokenizer.eos)
    return PromptFormat(Template(prompt, response, prefill), tokenizer, end, chat=True)


def template_strings(options: dict[str, Any], weights: str = "") -> dict[str, str] | None:
    """The very strings that a task with these options uses, for the log; None for a task without a template."""
    if "template" not in options:
        return None
    if not weights:
        return templates.exact(options) if options["template"] != MODEL_TEMPLATE else None
    how = {name: options[name] for name in ("instruction", "system", "thinking") if name in options}
    return make_prompt_format(options["template"], load_tokenizer(weights), **how).template._asdict()
