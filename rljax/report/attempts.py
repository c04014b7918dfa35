"""Attempts as HTML, with the think part and the final answer set apart: lists, one example, models side by side.

A sample is a line of a run's samples/*.jsonl. Every text of a policy is escaped here; what is returned is HTML.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rljax.errors import UserError

Sample = Mapping[str, Any]
Model = tuple[str, Sequence[Sample]]  # (its name, its attempts at one question)
MIDDLE = "Of its attempts each model shows the middle one, when they are ordered by reward and then by length."


def split_answer(sample: Sample) -> tuple[str, str]:
    """(think part, final answer) of a response, without think tags and the stop token. Either may be "".

    A sample without "final", as runs before it left them, is cut after "</think>", else at the last word "answer"; where
    neither stands, all of it is the answer.
    """
    text = sample["response"].removesuffix("<eos>")
    at = sample.get("final")
    if at is None:
        end = text.rfind("</think>")
        words = [m.start() for m in re.finditer(r"\banswer\b", text)]
        at = end + len("</think>") if end >= 0 else words[-1] if words else 0
    clean = lambda part: re.sub(r"</?think>", " ", part).strip()
    return clean(text[:at]), clean(text[at:])


def is_right(sample: Sample) -> bool:
    """Whether the attempt earned more than half of the reward of a right one."""
    return sample["reward"] > 0.5


def count_tokens(sample: Sample) -> int:
    """The number of tokens in a response; of words where the sample does not have its tokens."""
    return len(sample.get("tokens") or sample["response"].split())


def typical_attempt(samples: Sequence[Sample]) -> Sample:
    """The middle attempt in the order of reward and then of length; of an even number the lower one of the two.

    It is right where more than half of them are right. Raises UserError where there is no attempt.
    """
    if not samples:
        raise UserError("report: a model without attempts cannot be shown beside another")
    return sorted(samples, key=lambda s: (s["reward"], count_tokens(s)))[(len(samples) - 1) // 2]


def rank_by_improvement(before: Mapping[int, Sequence[Sample]], after: Mapping[int, Sequence[Sample]]) -> list[int]:
    """The numbers of the problems that both have attempts at. Those whose pass rate rose most come first."""
    rate = lambda samples: sum(map(is_right, samples)) / max(len(samples), 1)
    return sorted(before.keys() & after.keys(), key=lambda q: (rate(before[q]) - rate(after[q]), q))


# Models side by side


def render_models(models: Sequence[Model], note: str = "") -> str:
    """HTML with a card for each of several models that were asked the same question.

    A card shows the model's ``typical_attempt``: what it thinks, what it answers, whether that is right. ``note`` says how
    the question was chosen. Where the models were asked in different words, each card has its own question. Raises UserError
    for a model without attempts.
    """
    shown = [(name, samples, typical_attempt(samples)) for name, samples in models]
    asked = list(dict.fromkeys(sample["prompt"] for _, _, sample in shown))
    cards = []
    for name, samples, sample in shown:
        right = f"{sum(map(is_right, samples))} of {len(samples)} right"
        cards.append(render_card(name, right, sample, prompt=sample["prompt"] if len(asked) > 1 else ""))
    lead = f'<p class="note">{html.escape(" ".join(filter(None, (note, MIDDLE))))}</p>'
    question = render_question(asked[0]) if len(asked) == 1 else ""
    return f'{lead}{question}<div class="columns">{"".join(cards)}</div>'


def render_example(
    note: str, sample: Sample | None = None, shows: re.Pattern[str] | None = None, label: str = ""
) -> str:
    """HTML with a sentence and below it one attempt, in which the matches of ``shows`` are marked."""
    lead = f'<p class="note">{html.escape(note)}</p>'
    if sample is None:
        return lead
    return f"{lead}{render_question(sample['prompt'])}{render_card(label, '', sample, shows=shows)}"


def render_card(name: str, note: str, sample: Sample, prompt: str = "", shows: re.Pattern[str] | None = None) -> str:
    """HTML of one attempt as a card: its think part, its final answer, and whether that is right."""
    think, final = split_answer(sample)
    known = sample.get("think_tokens")
    count = f"{len(think.split())} words" if known is None else f"{known} token{'s' * (known != 1)}"
    kind, verdict = ("right", "✓ right") if is_right(sample) else ("wrong", "✗ wrong")
    answer = mark_matches(final, shows) if final else "no final answer"
    cut = "" if sample["response"].endswith("<eos>") else ", cut off"
    name = html.escape(name)
    return (
        f'<article class="model {kind}" aria-label="{name}"><h3>{name} <span>{html.escape(note)}</span></h3>'
        f"{render_question(prompt) if prompt else ''}"
        f"<h4>thinks <span>{count}</span></h4>"
        f'<p class="think" tabindex="0">{mark_matches(think, shows) if think else "nothing"}</p>'
        f'<h4>answers</h4><p class="final">{answer}</p>'
        f'<p class="verdict">{verdict}<span>, reward {sample["reward"]:g}{cut}</span></p></article>'
    )


def render_question(prompt: str) -> str:
    """HTML of a question."""
    return f'<p class="question"><code>{html.escape(clean_prompt(prompt))}</code></p>'


def clean_prompt(prompt: str) -> str:
    """A prompt without its <bos> token."""
    return prompt.removeprefix("<bos>").strip()


def mark_matches(text: str, shows: re.Pattern[str] | None) -> str:
    """The text, escaped, with each match of the expression marked."""
    out, end = [], 0
    for found in shows.finditer(text) if shows else ():
        out += [html.escape(text[end : found.start()]), f"<mark>{html.escape(found[0])}</mark>"]
        end = found.end()
    return "".join([*out, html.escape(text[end:])])


# Lists of attempts


def render_problem(before: Sequence[Sample], after: Sequence[Sample], opened: bool, compared: tuple[str, str]) -> str:
    """HTML of one prompt with its attempts in two columns. ``compared`` has the columns' titles."""
    prompt = html.escape(clean_prompt(next((s["prompt"] for s in (*before, *after)), "")))
    columns = "".join(
        f"<div><h3>{name} <span>{sum(map(is_right, samples))} of {len(samples)} right</span></h3>"
        f"<ol>{''.join(map(render_attempt, samples))}</ol></div>"
        for name, samples in zip(compared, (before, after), strict=True)
    )
    return render_details(f"<code>{prompt}</code>", f'<div class="columns">{columns}</div>', opened)


def render_attempt(sample: Sample) -> str:
    """HTML of one line of a list: the think part muted, the final answer bold."""
    think, final = split_answer(sample)
    count = f"{len(sample['tokens'])} tokens" if sample.get("tokens") else ""
    note = ", ".join(filter(None, (count, str(sample.get("strategy") or ""))))
    kind, mark = ("right", "✓") if is_right(sample) else ("wrong", "✗")
    pieces = [f'<span class="think">{html.escape(think)}</span>'] if think else []
    pieces += [f'<b class="final">{html.escape(final)}</b>'] if final else []
    label = f'<b role="img" aria-label="{kind}">{mark}</b>'
    return f'<li class="{kind}">{label}<div><p>{" ".join(pieces)}</p><small>{html.escape(note)}</small></div></li>'


def render_details(summary: str, body: str, opened: bool) -> str:
    """HTML of a part that can be folded; ``opened``: unfolded at first. Both texts are HTML already."""
    return f"<details{' open' if opened else ''}><summary>{summary}</summary>{body}</details>"
