r"""Does a response keep the form that was asked for? Tags around thought and answer; linear time on any text.

The form is judged as a whole: what begins before it, ends after it, or opens a tag twice is not in form, and a tag with
nothing in it earns nothing, so that the form cannot be had without saying something.
"""

FORMS = {
    "think_answer": ("<think>", "</think>", "<answer>", "</answer>"),  # R1-Zero's template
    "think": ("<think>", "</think>"),  # and then the answer, in whatever form
}


def in_form(text: str, *, tags: str = "think_answer") -> float:
    """1 where a response (with what its prompt prefilled, without its stop token) keeps the form, else 0."""
    rest, contents = text.strip(), []
    for tag in FORMS[tags]:
        if rest.count(tag) != 1:
            return 0.0
        before, _, rest = rest.partition(tag)
        contents.append(before.strip())
    outside = contents[0::2]  # before <think>, and between </think> and <answer>
    inside = contents[1::2]
    last = rest.strip()
    good = not any(outside) and all(inside) and (bool(last) if tags == "think" else not last)
    return float(good)
