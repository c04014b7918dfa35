"""A conversation as one text, written by the chat template of a Hugging Face folder: a Jinja program, run in a sandbox.

The text is that of transformers' ``apply_chat_template(..., tokenize=False)``, whose surroundings are copied here: what a
template may call, which blanks it may leave, how messages reach it. Templates come with downloaded folders, so they see
plain data only, and anything they do wrong is the folder's fault: a UserError.
"""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils
import numpy as np

from rljax.errors import UserError

REASONING = ("reasoning_content", "thinking", "reasoning")  # names that a message's thought goes by


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    bos_token: str = "",
    eos_token: str = "",
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **more: Any,
) -> str:
    """The messages ({"role": ..., "content": ...}) as the template writes them; ``more`` are its own variables.

    Raises UserError for a template that is no Jinja, that refuses these messages, or that leaves the sandbox.
    """
    if not messages:
        raise UserError("chat template: there is no message to write")
    # an empty token is one that the tokenizer does not have: transformers leaves it undefined
    tokens = {name: text for name, text in (("bos_token", bos_token), ("eos_token", eos_token)) if text}
    try:
        return _compiled(template).render(
            **{"documents": None, **tokens, **_plain(more)},
            messages=[_message(m) for m in messages],
            tools=None if tools is None else _plain(tools),
            add_generation_prompt=add_generation_prompt,
        )
    except Exception as e:  # whatever a template can raise: its own words, a type, a division, a sandbox that is left
        said = " ".join(str(e).split()) or type(e).__name__
        where = f" (line {e.lineno})" if isinstance(e, jinja2.TemplateSyntaxError) else ""
        raise UserError(f"chat template: {said}{where}") from None


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=TemplateDict(), namespace=TemplateNamespace
    )
    return environment.from_string(template)


# What a message looks like to a template


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, and with its thought under the names that templates read."""
    plain = _plain({key: value for key, value in message.items() if value is not None})
    thought = next((plain[name] for name in REASONING if name in plain), None)
    return plain if thought is None else {"thinking": thought, **plain, "reasoning_content": thought}


def _plain(value: Any) -> Any:
    """Dicts, lists, texts and numbers only: an object's methods are no business of a template's."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (bool, int, float, str):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)  # an enum of texts says its own name to str()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value] if isinstance(value, list) else tuple(map(_plain, value))
    return f"<{type(value).__name__}>"


# What a template may call


class Generation(jinja2.ext.Extension):
    """``{% generation %} ... {% endgeneration %}`` says which text is the model's own; here it is just text."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # a call block, as in transformers: what is set inside stays inside
        return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: jinja2.runtime.Macro) -> str:
        return caller()


class TemplateDict:
    """``dict`` without its methods, some of which would change what the sandbox keeps unchanged."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class TemplateNamespace(jinja2.utils.Namespace):
    """``namespace`` whose names do not begin with an underscore: those are Python's own."""

    def __init__(*args: Any, **kwargs: Any):  # no name for self: a template may say namespace(self=...)
        self, *given = args
        attributes = dict(*given, **kwargs)
        for name in attributes:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any):
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any):
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace must not have {name!r}: it begins with an underscore")


def _raise_exception(message: str):
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as it is, where Jinja's own filter would write < as \\u003c."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
