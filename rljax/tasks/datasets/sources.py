r"""How the rows of each data set become records.

Every record has the same fields of text, ``FIELDS``. ``kind`` says how an answer is checked: "math" by ``verifiers.answers``,
"code" by ``verifiers.sandbox``, "countdown" by ``verifiers.arithmetic``. ``answer`` is the right answer, or for code a program
that passes; ``solution`` is the reasoning before it.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rljax.verifiers import answer_extraction
from rljax.verifiers.jail.cases import Case

Row = dict[str, Any]  # the keys are FIELDS; values are str, and tests is a list of str
FIELDS = ("id", "question", "answer", "solution", "level", "subject", "kind", "setup", "entry", "tests")
VERSION = "1.0.0"  # of prepared data: raise it when a row is parsed in another way


class File(NamedTuple):
    """A published file. ``name`` is its name in a user's own folder."""

    name: str
    url: str = ""  # "": there is no plain download
    size: int = 0  # bytes
    sha256: str = ""


class Source(NamedTuple):
    """A data set: its files by split, and the parser of their rows."""

    about: str
    files: dict[str, File]
    parse: Callable[
        [Mapping[str, Any]], Row | None
    ]  # raises ValueError for a row it cannot read; None: not of this split
    attempts: int = 16  # samples for each question in the evaluation protocol of DeepSeek-R1
    select: Callable[[str, Mapping[str, Any]], bool] | None = (
        None  # (split, row) -> is it of this split? For splits that share a file
    )
    generate: Callable[[str], Iterator[Row]] | None = None  # (split) -> records, for data sets without files


def make_row(question: Any, answer: Any, **more: Any) -> Row:
    """A record. Raises ValueError where question or answer is no text. An empty answer is allowed; the loader drops it."""
    if not isinstance(question, str) or not question.strip():
        raise ValueError('want an object with a text "question" (or "problem", or "prompt")')
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise ValueError('want a text or a number as "answer"')
    answer = int(answer) if isinstance(answer, float) and answer.is_integer() else answer  # AMC has 27.0
    text = {k: "" if v is None else str(v).strip() for k, v in more.items() if k != "tests"}
    blank = dict.fromkeys(FIELDS, "") | {"kind": "math", "tests": [str(t) for t in more.get("tests", ())]}
    return blank | text | {"question": question.strip(), "answer": str(answer).strip()}


def first_field(given: Mapping[str, Any], *names: str) -> Any:
    """The first of these fields that is not empty."""
    return next((given[n] for n in names if given.get(n) not in (None, "")), None)


# Parsers


def parse_gsm8k(given: Mapping[str, Any]) -> Row:
    """GSM8K: the solution ends in "#### NUMBER"; calculator annotations (48/2 = <<48/2=24>>24) are removed."""
    text = given.get("answer")
    if not isinstance(text, str) or "####" not in text:
        raise ValueError('want "answer" to be a text that ends in "#### NUMBER"')
    solution, _, answer = re.sub(r"<<[^<>]*>>", "", text).rpartition("####")
    if not re.fullmatch(r"-?\$?[0-9][0-9,]*(\.[0-9]+)?", answer.strip()):
        raise ValueError(f'the answer does not end in "#### NUMBER" but in {answer.strip()[:40]!r}')
    return make_row(given.get("question"), answer, solution=solution)


def parse_mathematics(given: Mapping[str, Any]) -> Row:
    """MATH, MATH-500, AIME, AMC and others: the answer in its own field, or in the last box of the solution."""
    solution = first_field(given, "solution", "reference_solution", "rationale")
    answer = first_field(given, "answer", "final_answer", "expected_answer", "gold", "target")
    if answer is None and (isinstance(solution, str) or "answer" in given):
        answer = answer_extraction.extract_final_region(solution or "") or ""
    if answer is None:
        raise ValueError(r'want an "answer", or a "solution" that ends in \boxed{ANSWER}')
    about = {
        "id": first_field(given, "id", "unique_id", "task_id"),
        "solution": solution,
        "level": str(first_field(given, "level", "difficulty") or "").removeprefix("Level ").strip("?"),
        "subject": first_field(given, "subject", "type", "category"),
    }
    return make_row(first_field(given, "question", "problem", "prompt"), answer, **about)


def parse_mbpp(given: Mapping[str, Any]) -> Row:
    """MBPP. The question shows the first test, because it names the function; all tests count."""
    tests, setup = given.get("test_list"), first_field(given, "test_setup_code", "test_imports") or ""
    if not isinstance(tests, list) or not tests:
        raise ValueError('want "test_list", a list of assert statements')
    setup = "\n".join(setup) if isinstance(setup, list) else setup
    question = f"{first_field(given, 'text', 'prompt')} Your code should pass this test:\n{tests[0]}"
    code = str(given.get("code") or "pass").replace("\r", "")
    about = {"id": given.get("task_id"), "setup": setup, "entry": tested_function(code, tests[0]), "kind": "code"}
    return make_row(question, code, tests=tests, **about)


def tested_function(code: str, test: str) -> str:
    """The name of the program's function that a test calls; it may be the name of a built-in function ("sum")."""
    defined = re.findall(r"^def +(\w+)", code, re.MULTILINE)
    called = re.findall(r"(\w+) *\(", test)
    return next((name for name in defined if name in called), "")


def parse_human_eval(given: Mapping[str, Any]) -> Row:
    """HumanEval. The question is the head of a function with its docstring; tests and program both get it as setup."""
    head, test, entry = (given.get(k) for k in ("prompt", "test", "entry_point"))
    if not (isinstance(head, str) and isinstance(test, str) and isinstance(entry, str)):
        raise ValueError('want the texts "prompt", "test" and "entry_point"')
    question = f"Complete this Python function; answer with the whole function.\n```python\n{head.rstrip()}\n```"
    answer = head + str(given.get("canonical_solution", ""))
    about = {"id": given.get("task_id"), "setup": head, "entry": entry, "kind": "code"}
    return make_row(question, answer, tests=[test], **about)


def parse_own(given: Mapping[str, Any]) -> Row:
    """Your own file: "question" with an "answer", or with "tests" (assert statements, or [stdin, stdout] pairs)."""
    solution, mark, answer = str(given.get("answer", "")).rpartition("####")
    if mark:
        given = {**given, "answer": answer.strip(), "solution": solution}
    tests = first_field(given, "tests", "test_list")
    if tests is None:
        return parse_mathematics(given)
    if not isinstance(tests, list) or not tests or not all(isinstance(t, str) or is_pair(t) for t in tests):
        raise ValueError('want "tests" to be a list, not empty, of assert statements or of [stdin, stdout] pairs')
    if any(isinstance(t, str) and PAIR_SEPARATOR in t for t in tests):
        raise ValueError("a test holds a NUL character, which is no Python")
    if wrong := next((name for name in ("setup", "entry") if not isinstance(given.get(name) or "", str)), ""):
        raise ValueError(f'want "{wrong}" to be a text')
    about = {"id": first_field(given, "id", "task_id"), "level": first_field(given, "level", "difficulty")}
    about |= {k: given.get(k) for k in ("solution", "setup", "entry")} | {"kind": "code"}
    question, program = (
        first_field(given, "question", "problem", "prompt"),
        first_field(given, "answer", "code") or "pass",
    )
    return make_row(question, program, tests=[t if isinstance(t, str) else join_pair(*t) for t in tests], **about)


PAIR_SEPARATOR = "\x00"  # between stdin and stdout of a test that is a pair


def is_pair(test: Any) -> bool:
    """Whether a test is a [stdin, stdout] pair of texts that ``join_pair`` can hold."""
    return isinstance(test, list) and len(test) == 2 and all(isinstance(x, str) for x in test) and "\0" not in test[0]


def join_pair(stdin: str, stdout: str) -> str:
    """A [stdin, stdout] pair as one text."""
    return f"{stdin}{PAIR_SEPARATOR}{stdout}"


def test_cases(record: Row) -> list[Case]:
    """The test cases of a record for the sandbox. Raises UserError where its setup or entry does not fit.

    A test is an assert statement, or a pair of stdin and stdout.
    """
    cases = []
    for test in record["tests"]:
        stdin, pair, stdout = test.partition(PAIR_SEPARATOR)
        cases.append(
            Case(stdin=stdin, stdout=stdout) if pair else Case(test=test, setup=record["setup"], entry=record["entry"])
        )
    return cases


# Countdown in words, as in TinyZero

COUNTDOWN_ROWS = {"train": 20_000, "test": 1_000}
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def generate_countdown(split: str) -> Iterator[Row]:
    """Questions with three or four numbers up to 99 and a target that they reach; a function of the split alone."""
    rng, seen = random.Random(f"countdown {split}"), set()
    number = 0
    while number < COUNTDOWN_ROWS[split]:
        numbers = [rng.randint(1, 99) for _ in range(rng.choice((3, 4)))]
        left: list[tuple[str, int]] = [(str(n), n) for n in numbers]
        while len(left) > 1:
            rng.shuffle(left)
            (first, a), (second, b) = left.pop(), left.pop()
            sign = rng.choice("+-*")
            left.append((f"({first} {sign} {second})", OPERATIONS[sign](a, b)))
        expression, target = left[0]
        content = (*sorted(numbers), target)
        if not 10 <= target <= 100 or content in seen or (stable_hash(content) % 10 == 0) != (split == "test"):
            continue
        seen.add(content)
        question = (
            f"Using the numbers {numbers}, create an equation that equals {target}. You can use basic arithmetic operations "
            "(+, -, *, /) and each number must be used exactly once."
        )
        yield make_row(
            question, expression[1:-1], id=f"{split}/{number}", kind="countdown", setup=f"{target} from {numbers}"
        )
        number += 1


def stable_hash(content: tuple[int, ...]) -> int:
    """A hash that is the same on every machine and in every process."""
    return random.Random(repr(content)).randrange(1 << 30)
