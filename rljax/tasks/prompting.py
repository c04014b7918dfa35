"""Prompt formats: a template and a tokenizer turn a question into a prompt, and its solution into a response.

``template="own"`` is the chat template that came with the model. It is rendered once, with a placeholder for the question,
so the exact string is known and logged. Text in a question never becomes a control token.
"""

import dataclasses
from typing import Any

from rljax import text
from rljax.errors import UserError
from rljax.text import FolderTokenizer, Tokenizer, templates
from rljax.text.hf_tokenizer import load_tokenizer
from rljax.text.templates import Template

MODEL_TEMPLATE = "own"
PLACEHOLDER = "{question}"
TEMPLATE_DATE = (
    "26 Jul 2024"  # in templates that state one: Llama 3's own default, so that a resumed run sees the same prompts
)
THINKING_RESPONSE = "<think>\n{solution}\n</think>\n\n\\boxed{{answer}}"
PLAIN_RESPONSE = "{solution}\n\\boxed{{answer}}"


@dataclasses.dataclass(frozen=True)
class PromptFormat:
    """How questions are asked, and demonstrations written."""

    template: Template
    tokenizer: Tokenizer
    stop_id: int  # the last id of a demonstration
    chat: bool = False  # the template was rendered by a chat template, which has the beginning in it

    def prompt_ids(self, question: str, examples: str = "") -> list[int]:
        """Ids of the prompt that asks this question, after a text of examples, with exactly one beginning of text."""
        before, *rest = self.template.prompt.split(PLACEHOLDER)
        parts = [(examples, False), (before, True)] + [
            part for after in rest for part in ((question, False), (after, True))
        ]
        return self.tokenizer.encode_parts(parts) if self.chat else text.prompt_ids(self.tokenizer, parts)

    def response_ids(self, parts: list[tuple[str, bool]]) -> list[int]:
        """Ids of a demonstration in parts (text, trusted), with its stop token."""
        return [*self.tokenizer.encode_parts(parts), self.stop_id]


def make_prompt_format(
    template: str,
    tokenizer: Tokenizer,
    instruction: str = templates.STEP_BY_STEP,
    system: str = "",
    thinking: bool = True,
) -> PromptFormat:
    """The format of a template: its name, the template itself, or "own" for the model's chat template.

    ``instruction``, ``system`` and ``thinking`` are for "own" alone. Raises UserError for an unknown name, and for a model
    that has no chat template or one that rewrites the question.
    """
    if template == MODEL_TEMPLATE:
        return model_prompt_format(tokenizer, instruction, system, thinking)
    found = templates.find_template(template)
    if isinstance(tokenizer, FolderTokenizer) and found.prompt.endswith(" "):
        # words of a learned vocabulary begin with their space: it belongs to the response
        found = found._replace(prompt=found.prompt.rstrip(" "), response=" " + found.response)
    return PromptFormat(found, tokenizer, tokenizer.eos)


def model_prompt_format(tokenizer: Tokenizer, instruction: str, system: str, thinking: bool) -> PromptFormat:
    """The format of the model's own chat template. Raises UserError where it has none, or it rewrites the question."""
    if not isinstance(tokenizer, FolderTokenizer) or not tokenizer.chat_template:
        raise UserError(
            f"template={MODEL_TEMPLATE!r}: this model has no chat template, choose from {sorted(templates.TEMPLATES)} or write one"
        )
    write = tokenizer.chat_template
    about: Any = dict(bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token, enable_thinking=thinking)
    about["date_string"] = TEMPLATE_DATE

    def messages(question: str) -> list[dict[str, str]]:
        content = f"{question}\n{instruction}" if instruction else question
        return ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": content}]

    prompt = text.render_chat(write, messages(PLACEHOLDER), add_generation_prompt=True, **about)
    probe = "Is 1 < 2 & \"3\" >= {x}?\n\n  Say 'yes'."
    if text.render_chat(write, messages(probe), add_generation_prompt=True, **about) != prompt.replace(
        PLACEHOLDER, probe
    ):
        raise UserError(
            f"template={MODEL_TEMPLATE!r}: the model's chat template rewrites what is asked; write the template out instead"
        )
    after = prompt.rpartition(PLACEHOLDER)[2]
    prefill = after[after.index("<think>") :] if "<think>" in after else ""
    thinks = "<think>" in write and "</think>" not in prefill
    response = THINKING_RESPONSE.removeprefix(prefill) if thinks else PLAIN_RESPONSE
    replied = text.render_chat(
        write, [*messages("Q"), {"role": "assistant", "content": probe}], add_generation_prompt=False, **about
    )
    ends = tokenizer.encode(replied.rpartition(probe)[2], specials=True)
    end = next((i for i in ends if i in tokenizer.stop_ids), tokenizer.eos)
    return PromptFormat(Template(prompt, response, prefill), tokenizer, end, chat=True)


def template_strings(options: dict[str, Any], weights: str = "") -> dict[str, str] | None:
    """The exact strings of the template of a task with these options, for the log; None where there is no template."""
    if "template" not in options:
        return None
    if not weights:
        return templates.template_strings(options) if options["template"] != MODEL_TEMPLATE else None
    how = {name: options[name] for name in ("instruction", "system", "thinking") if name in options}
    return make_prompt_format(options["template"], load_tokenizer(weights), **how).template._asdict()
