"""A conversation as one text, by the chat template of a Hugging Face folder: a Jinja program that runs in a sandbox.

The text is the one of transformers' ``apply_chat_template(..., tokenize=False)``. The environment is copied from there: the
functions that a template may call, the whitespace rules, the form of messages. Templates come with downloaded folders, so
they see plain data only. Any error in a template is a UserError.
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

REASONING = ("reasoning_content", "thinking", "reasoning")  # names of the field that holds the reasoning of a message


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    bos_token: str = "",
    eos_token: str = "",
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **more: Any,
) -> str:
    """The messages ({"role": ..., "content": ...}) as one text; ``more`` are the template's own variables.

    Raises UserError for a template that is not valid Jinja, that refuses these messages, or that tries to leave the sandbox.
    """
    if not messages:
        raise UserError("chat template: there is no message to write")
    # An empty token is one that the tokenizer does not have. transformers leaves it undefined.
    tokens = {name: text for name, text in (("bos_token", bos_token), ("eos_token", eos_token)) if text}
    try:
        return _compiled(template).render(
            **{"documents": None, **tokens, **_plain(more)},
            messages=[_message(m) for m in messages],
            tools=None if tools is None else _plain(tools),
            add_generation_prompt=add_generation_prompt,
        )
    except (
        Exception
    ) as e:  # a template can raise anything: its own message, a TypeError, a SecurityError of the sandbox
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
    """The message without fields that are None, and with its reasoning under the names that templates read."""
    plain = _plain({key: value for key, value in message.items() if value is not None})
    thought = next((plain[name] for name in REASONING if name in plain), None)
    return plain if thought is None else {"thinking": thought, **plain, "reasoning_content": thought}


def _plain(value: Any) -> Any:
    """The value as dicts, lists, strings and numbers only: a template must not call methods of other objects."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (bool, int, float, str):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)  # str() of a string enum would return the name of its member
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value] if isinstance(value, list) else tuple(map(_plain, value))
    return f"<{type(value).__name__}>"


# What a template may call


class Generation(jinja2.ext.Extension):
    """``{% generation %} ... {% endgeneration %}``, which marks the model's own text; here it is ordinary text."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # a call block, as in transformers: variables that are set inside stay inside
        return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: jinja2.runtime.Macro) -> str:
        return caller()


class TemplateDict:
    """``dict`` without its methods, some of which could change values that the sandbox protects."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class TemplateNamespace(jinja2.utils.Namespace):
    """``namespace`` that refuses names with a leading underscore: these are Python's own."""

    def __init__(*args: Any, **kwargs: Any):  # no parameter called self: a template may call namespace(self=...)
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
    """Plain JSON. Jinja's own filter would write < as \\u003c."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
