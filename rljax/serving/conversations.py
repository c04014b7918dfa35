"""A conversation as ids: by the chat template of a model folder, or as a question of the task where there is none."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from rljax import text
from rljax.errors import UserError
from rljax.serving.fields import MAX_TEXT, FieldError, Fields
from rljax.serving.questions import encode_question
from rljax.tasks import Task
from rljax.text import FolderTokenizer

MESSAGES = 200
ROLES = ("system", "user", "assistant")


def read_messages(fields: Fields) -> list[dict[str, str]]:
    """The messages of a request. Raises FieldError for what is no list of them."""
    found = fields.get("messages")
    if not isinstance(found, list) or not 0 < len(found) <= MESSAGES:
        raise FieldError("messages", f"must be a list of 1 to {MESSAGES} messages")
    return [{"role": read_role(m), "content": read_content(m)} for m in found]


def read_role(message: Any) -> str:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in (*ROLES, "developer"):
        raise FieldError("messages", f"each has a role: choose from {', '.join(ROLES)}")
    return "system" if role == "developer" else role


def read_content(message: Mapping[str, Any]) -> str:
    """The text of a message, which may come in parts."""
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(p, Mapping) and p.get("type") == "text" for p in content):
        content = "".join(p.get("text", "") for p in content if isinstance(p.get("text"), str))
    if not isinstance(content, str):
        raise FieldError("messages", "each has a content, which is a text")
    if len(content) > MAX_TEXT or any("\ud800" <= character <= "\udfff" for character in content):
        raise FieldError("messages", f"a content has at most {MAX_TEXT} characters, all of them whole")
    return content


def encode_conversation(task: Task, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Ids of the conversation, up to where the answer begins. What the messages say never becomes a control token.

    Raises FieldError where the policy has no chat template and there is more than one question.
    """
    tokenizer = task.tokenizer
    if isinstance(tokenizer, FolderTokenizer) and tokenizer.chat_template:
        try:
            return tokenizer.encode_parts(template_parts(tokenizer, tokenizer.chat_template, messages))
        except UserError as e:
            raise FieldError("messages", str(e)) from None
    if len(messages) != 1 or messages[0]["role"] != "user":
        raise FieldError("messages", "this policy has no chat template: send one message of the user, its question")
    try:
        return encode_question(task, messages[0]["content"])
    except UserError as e:
        raise FieldError("messages", str(e)) from None


def template_parts(
    tokenizer: FolderTokenizer, template: str, messages: Sequence[Mapping[str, str]]
) -> list[tuple[str, bool]]:
    """The conversation in parts (text, trusted): the template's own words are trusted, those of the messages are not."""
    about: dict[str, Any] = dict(bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token)
    render = lambda said: text.render_chat(template, said, add_generation_prompt=True, **about)
    whole, marks = render(messages), [f"x{secrets.token_hex(12)}x" for _ in messages]
    marked = render([{**m, "content": mark} for m, mark in zip(messages, marks, strict=True)])
    parts: list[tuple[str, bool]] = []
    for mark, message in zip(marks, messages, strict=True):
        before, found, marked = marked.partition(mark)
        parts += [(before, True), (message["content"] if found else "", False)]
    parts.append((marked, True))
    trimmed = [(part if trusted else part.strip(), trusted) for part, trusted in parts]  # as many templates do
    for contents in (parts, trimmed):
        if "".join(part for part, _ in contents) == whole:
            return contents
    if names := text.find_control_tokens(tokenizer, (m["content"] for m in messages)):
        raise UserError(
            f"the chat template rewrites what is said, and {names[0]!r} in it is a control token: leave it out"
        )
    return [(whole, True)]
