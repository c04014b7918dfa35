"""Attempts as HTML, with their reasoning and final answer shown separately: lists, one example, models side by side.

A sample is a line of a run's samples/*.jsonl. The ``render_*`` functions return HTML in which every text of a policy is
escaped.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rljax.errors import UserError

Sample = Mapping[str, Any]
ModelAttempts = tuple[str, Sequence[Sample]]  # (name of a model, its attempts at one question)
MAX_LABEL = 12  # characters of what begins each block of a prompt with worked examples, as in "Question:"
MEDIAN_NOTE = "For each model the median attempt is shown, in the order of reward and then of length."


def split_answer(sample: Sample) -> tuple[str, str]:
    """(reasoning, final answer) of a response, without think tags and the stop token. Either may be "".

    The final answer begins at "final". A sample without it, as older runs wrote, is split after "</think>", else at the last
    word "answer". Without both, the whole text is the answer.
    """
    text = sample["response"].removesuffix("<eos>")
    start = sample.get("final")
    if start is None:
        end = text.rfind("</think>")
        words = [m.start() for m in re.finditer(r"\banswer\b", text)]
        start = end + len("</think>") if end >= 0 else words[-1] if words else 0
    clean = lambda part: re.sub(r"</?think>", " ", part).strip()
    return clean(text[:start]), clean(text[start:])


def is_right(sample: Sample) -> bool:
    """Whether the reward is above 0.5."""
    return sample["reward"] > 0.5


def count_tokens(sample: Sample) -> int:
    """The number of tokens in a response; the number of words where the sample has no tokens."""
    return len(sample.get("tokens") or sample["response"].split())


def median_attempt(samples: Sequence[Sample]) -> Sample:
    """The median attempt in the order of reward and then of length; the lower one of the two middle ones.

    It is right if more than half of the attempts are right. Raises UserError where there is no attempt.
    """
    if not samples:
        raise UserError("report: a model has no attempts to show; evaluate it first")
    return sorted(samples, key=lambda s: (s["reward"], count_tokens(s)))[(len(samples) - 1) // 2]


def rank_by_improvement(before: Mapping[int, Sequence[Sample]], after: Mapping[int, Sequence[Sample]]) -> list[int]:
    """The problems with attempts in both, the largest increase of the pass rate first. Keys are numbers of problems."""
    rate = lambda samples: sum(map(is_right, samples)) / max(len(samples), 1)
    return sorted(before.keys() & after.keys(), key=lambda q: (rate(before[q]) - rate(after[q]), q))


# Models side by side


def render_models(models: Sequence[ModelAttempts], note: str = "") -> str:
    """HTML with one card for each model, all at the same question.

    A card shows the model's ``median_attempt``: its reasoning, its answer, and whether that is right. ``note`` says how the
    question was chosen. Where the prompts differ, each card has its own. Raises UserError for a model without attempts.
    """
    medians = [(name, samples, median_attempt(samples)) for name, samples in models]
    prompts = list(dict.fromkeys(sample["prompt"] for _, _, sample in medians))
    cards = []
    for name, samples, sample in medians:
        right = f"{sum(map(is_right, samples))} of {len(samples)} right"
        cards.append(render_card(name, right, sample, prompt=sample["prompt"] if len(prompts) > 1 else ""))
    lead = f'<p class="note">{html.escape(" ".join(filter(None, (note, MEDIAN_NOTE))))}</p>'
    question = render_question(prompts[0]) if len(prompts) == 1 else ""
    return f'{lead}{question}<div class="columns">{"".join(cards)}</div>'


def render_example(
    note: str, sample: Sample | None = None, pattern: re.Pattern[str] | None = None, label: str = ""
) -> str:
    """HTML with a note, and below it one attempt in which the matches of ``pattern`` are marked."""
    lead = f'<p class="note">{html.escape(note)}</p>'
    if sample is None:
        return lead
    return f"{lead}{render_question(sample['prompt'])}{render_card(label, '', sample, pattern=pattern)}"


def render_card(name: str, note: str, sample: Sample, prompt: str = "", pattern: re.Pattern[str] | None = None) -> str:
    """HTML of one attempt as a card: its reasoning, its final answer, and whether that is right."""
    think, final = split_answer(sample)
    think_tokens = sample.get("think_tokens")
    count = (
        f"{len(think.split())} words" if think_tokens is None else f"{think_tokens} token{'s' * (think_tokens != 1)}"
    )
    kind, verdict = ("right", "✓ right") if is_right(sample) else ("wrong", "✗ wrong")
    answer = mark_matches(final, pattern) if final else "no final answer"
    cut = "" if sample["response"].endswith("<eos>") else ", cut off"
    name = html.escape(name)
    return (
        f'<article class="model {kind}" aria-label="{name}"><h3>{name} <span>{html.escape(note)}</span></h3>'
        f"{render_question(prompt) if prompt else ''}"
        f"<h4>thinks <span>{count}</span></h4>"
        f'<p class="think" tabindex="0">{mark_matches(think, pattern) if think else "nothing"}</p>'
        f'<h4>answers</h4><p class="final">{answer}</p>'
        f'<p class="verdict">{verdict}<span>, reward {sample["reward"]:g}{cut}</span></p></article>'
    )


def render_question(prompt: str) -> str:
    """HTML of a question. Worked examples before it are folded."""
    examples, question = split_examples(prompt)
    folded = (
        render_details("worked examples before it", f"<pre>{html.escape(examples)}</pre>", False) if examples else ""
    )
    return f'<div class="question"><code>{html.escape(question)}</code>{folded}</div>'


def split_examples(prompt: str) -> tuple[str, str]:
    """(worked examples, question) of a prompt; the examples are "" where there are none.

    A prompt has examples where it is made of blocks, with an empty line between them, that begin with the same label: "Q:".
    """
    blocks = clean_prompt(prompt).split("\n\n")
    labels = {block[: block.find(":") + 1] for block in blocks}
    if len(blocks) < 2 or len(labels) > 1 or not 1 < len(labels.pop()) <= MAX_LABEL:
        return "", clean_prompt(prompt)
    return "\n\n".join(blocks[:-1]), blocks[-1]


def clean_prompt(prompt: str) -> str:
    """A prompt without its <bos> token."""
    return prompt.removeprefix("<bos>").strip()


def mark_matches(text: str, pattern: re.Pattern[str] | None) -> str:
    """The text, escaped, with each match of the expression marked."""
    out, end = [], 0
    for match in pattern.finditer(text) if pattern else ():
        out += [html.escape(text[end : match.start()]), f"<mark>{html.escape(match[0])}</mark>"]
        end = match.end()
    return "".join([*out, html.escape(text[end:])])


# Lists of attempts


def render_problem(
    before: Sequence[Sample], after: Sequence[Sample], is_open: bool, column_titles: tuple[str, str], title: str = ""
) -> str:
    """HTML of one prompt, or of ``title``, with its attempts in two columns, folded unless ``is_open``."""
    prompt = html.escape(title or split_examples(next((s["prompt"] for s in (*before, *after)), ""))[1])
    columns = "".join(
        f"<div><h3>{name} <span>{sum(map(is_right, samples))} of {len(samples)} right</span></h3>"
        f"<ol>{''.join(map(render_attempt, samples))}</ol></div>"
        for name, samples in zip(column_titles, (before, after), strict=True)
    )
    return render_details(f"<code>{prompt}</code>", f'<div class="columns">{columns}</div>', is_open)


def render_attempt(sample: Sample) -> str:
    """HTML of one attempt as a line of a list: its reasoning muted, its final answer bold."""
    think, final = split_answer(sample)
    count = f"{len(sample['tokens'])} tokens" if sample.get("tokens") else ""
    note = ", ".join(filter(None, (count, str(sample.get("strategy") or ""))))
    kind, mark = ("right", "✓") if is_right(sample) else ("wrong", "✗")
    pieces = [f'<span class="think">{html.escape(think)}</span>'] if think else []
    pieces += [f'<b class="final">{html.escape(final)}</b>'] if final else []
    label = f'<b role="img" aria-label="{kind}">{mark}</b>'
    return f'<li class="{kind}">{label}<div><p>{" ".join(pieces)}</p><small>{html.escape(note)}</small></div></li>'


def render_details(summary: str, body: str, is_open: bool) -> str:
    """HTML of a part that can be folded; ``is_open``: unfolded at first. ``summary`` and ``body`` are HTML."""
    return f"<details{' open' if is_open else ''}><summary>{summary}</summary>{body}</details>"
