r"""Format reward: does a response use the tags around thought and answer as the prompt asks? Linear time on any text.

The whole response is checked. Text before or after the format is an error, and so is a tag that occurs twice. A tag
with nothing in it is an error too, or the policy could earn the format reward without saying anything.
"""

TAG_SEQUENCES = {
    "think_answer": ("<think>", "</think>", "<answer>", "</answer>"),  # the template of R1-Zero
    "think": ("<think>", "</think>"),  # followed by the answer in any form
}


def format_reward(text: str, *, tags: str = "think_answer") -> float:
    """1 if a response has the format, else 0 (DeepSeek-R1, section 2.2.2).

    ``text`` includes what the prompt prefilled, and excludes the stop token. ``tags`` is a key of ``TAG_SEQUENCES``.
    """
    rest, contents = text.strip(), []
    for tag in TAG_SEQUENCES[tags]:
        if rest.count(tag) != 1:
            return 0.0
        before, _, rest = rest.partition(tag)
        contents.append(before.strip())
    outside = contents[0::2]  # before <think>, and between </think> and <answer>
    inside = contents[1::2]
    last = rest.strip()
    good = not any(outside) and all(inside) and (bool(last) if tags == "think" else not last)
    return float(good)
