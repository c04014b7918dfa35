"""Problems that reasoning-gym generates, from the tasks that passed our audit; an optional extra.

    make_rows("chain_sum", "train")  ->  records of kind "gym", checked by ``is_right(answer, record["setup"])``

``python -m tools.audit_gym`` is the audit: problems depend on the seed alone; the scorer gives full marks to no junk, runs no
part of an answer as code, never raises, and is quick. Each task was audited with its default options.
"""

import contextlib
import difflib
import functools
import importlib
import importlib.metadata
import io
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from rljax.errors import UserError
from rljax.tasks.datasets import sources
from rljax.tasks.datasets.sources import Row

LOG = logging.getLogger(__name__)
AUDITED = "0.1.25"
ROWS = {"train": 2_000, "test": 200}
SEEDS = {"train": 0, "test": 1 << 30}  # far apart: item i of seed s is mostly item i - 1 of seed s + 1
DRAWS = 4  # at most so many problems are drawn for each one that is needed
LONGEST = 2_000  # characters of an answer
FULL = 1 - 1e-9  # full marks; partial credit counts as 0, because most of it needs no solution

# fmt: off
ALLOWED: tuple[str, ...] = (
    "ab", "aiw", "arc_1d", "basic_arithmetic", "bf", "binary_alternation", "bitwise_arithmetic", "caesar_cipher",
    "chain_sum", "circuit_logic", "color_cube_rotation", "count_bits", "count_primes", "course_schedule",
    "cryptarithm", "decimal_chain_sum", "dice", "emoji_mystery", "family_relationships", "figlet_font", "gcd",
    "group_anagrams", "kakurasu", "knights_knaves", "largest_island", "lcm", "leg_counting", "letter_counting",
    "mahjong_puzzle", "manipulate_matrix", "maze", "mini_sudoku", "modulo_grid", "needle_haystack",
    "number_filtering", "number_sequence", "palindrome_generation", "path_star", "power_function", "products",
    "quantum_lock", "rectangle_count", "rotate_matrix", "rotten_oranges", "self_reference", "sentence_reordering",
    "shortest_path", "simple_equations", "simple_geometry", "string_manipulation", "sudoku", "survo", "syllogism",
    "tsumego", "word_sequence_reversal",
)
# fmt: on

REFUSED: dict[str, str] = {  # task -> why it failed the audit
    "acre": "its problems depend on how many are made",
    "advanced_geometry": "a right answer among wrong ones earns full marks",
    "arc_agi": "its records cannot be scored once they are JSON",
    "base_conversion": "some of its problems have no answer",
    "binary_matrix": "its scorer runs the answer as code",
    "boxnet": "some of its problems have no answer",
    "calendar_arithmetic": "its scorer raises on numbers out of range",
    "codeio": "its problems cannot be kept as JSON",
    "coin_flip": "its scorer hangs on numbers such as 1e999999999",
    "complex_arithmetic": "the answer nan earns full marks",
    "composite": "it is a mixture of other tasks",
    "countdown": "its scorer runs the answer as code",
    "decimal_arithmetic": "answers that are off by 0.001 earn full marks",
    "fraction_simplification": "a right answer among wrong ones earns full marks",
    "futoshiki": "it is too slow to make",
    "game_of_life": "a board with more in it earns full marks",
    "game_of_life_halting": "any text earns full marks",
    "graph_color": "some of its problems have no answer",
    "gsm_symbolic": "a right answer among wrong ones earns full marks",
    "intermediate_integration": "its scorer runs the answer as code",
    "isomorphic_strings": "its problems differ between processes of one seed",
    "jugs": "it has too few different questions",
    "knight_swap": "it is too slow to make",
    "letter_jumble": "a right answer among wrong ones earns full marks",
    "list_functions": "its problems are not a function of the seed",
    "n_queens": "its scorer runs the answer as code",
    "number_format": "answers that are off by 0.01, other candidates too, earn full marks",
    "number_sorting": "numbers that are off by 1 earn full marks",
    "palindrome_partitioning": "its answers are longer than 2,000 characters",
    "polynomial_equations": "a right answer among wrong ones earns full marks",
    "polynomial_multiplication": "its scorer runs the answer as code",
    "pool_matrix": "it seeds the global random numbers",
    "prime_factorization": "its scorer raises on words",
    "propositional_logic": "some of its problems have no answer",
    "puzzle24": "its scorer runs the answer as code",
    "ransom_note": "its problems differ between processes of one seed",
    "rearc": "its records cannot be scored once they are JSON",
    "rubiks_cube": "some of its problems have no answer",
    "rush_hour": "some of its problems have no answer",
    "simple_integration": "its scorer runs the answer as code",
    "sokoban": "a right answer among wrong ones earns full marks",
    "spell_backward": "a right answer among wrong ones earns full marks",
    "spiral_matrix": "its scorer runs the answer as code",
    "string_insertion": "its scorer runs the answer as code",
    "string_splitting": "it has too few different questions",
    "string_synthesis": "it has too few different questions",
    "time_intervals": "its problems depend on the date",
    "tower_of_hanoi": "it has too few different questions",
    "word_ladder": "its problems differ between processes of one seed",
    "word_sorting": "a right answer among wrong ones earns full marks",
    "zebra_puzzles": "it is too slow to make",
}


def make_rows(name: str, split: str, options: Mapping[str, Any] = {}) -> Iterator[Row]:
    """Records of different problems of one task, no problem in both splits; a function of the arguments alone.

    Raises UserError for a task that did not pass the audit, for options that do not fit it, and where reasoning-gym is not
    installed.
    """
    check_allowed(name)
    check_version()
    asked = set() if split == "test" else {entry["question"] for entry in draw_entries(name, "test", options, set())}
    for number, entry in enumerate(draw_entries(name, split, options, asked)):
        about = {"id": f"{name}/{split}/{number}", "subject": name, "setup": pack_setup(name, entry, options)}
        yield sources.make_row(entry["question"], entry["answer"], kind="gym", **about)


def is_right(answer: str, setup: str) -> bool:
    """Whether the final answer of a response earns full marks. An exception of the scorer counts as no."""
    answer = answer.strip()
    if len(answer) > LONGEST:
        return False
    try:
        check_allowed(json.loads(setup)["task"])  # a data file may name any task, and some scorers run answers as code
        return score_answer(answer, setup) >= FULL
    except UserError:
        raise
    except Exception:
        return False


def score_answer(answer: str, setup: str) -> float:
    """The score that reasoning-gym gives to this answer."""
    held = json.loads(setup)
    scorer = scoring_task(held["task"], json.dumps(held.get("options", {})))
    return float(scorer.score_answer(answer, held["entry"]))


def pack_setup(name: str, entry: Mapping[str, Any], options: Mapping[str, Any] = {}) -> str:
    """What the scorer needs, as JSON. The question is not in it: the record has it, and no scorer reads it."""
    held = {"task": name, "entry": {"answer": entry["answer"], "metadata": entry["metadata"]}}
    return json.dumps(held | ({"options": dict(options)} if options else {}), default=plain_json)


def plain_json(value: Any) -> Any:
    """NumPy numbers and arrays as numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"JSON has no {type(value).__name__}")


def draw_entries(name: str, split: str, options: Mapping[str, Any], seen: set[str]) -> Iterator[dict[str, Any]]:
    """Solvable problems, as many as the split has. Their questions are not in ``seen``, and are added to it."""
    wanted = ROWS[split]
    task, left = create_gym_task(name, {"seed": SEEDS[split], "size": DRAWS * wanted}, options), wanted
    for i in range(DRAWS * wanted):
        with contextlib.redirect_stdout(io.StringIO()):  # bf prints dots
            entry = task[i]
        if entry["question"] in seen or not is_right(entry["answer"], pack_setup(name, entry, options)):
            continue  # where the right answer is empty: once in 2,000 problems of string_manipulation
        seen.add(entry["question"])
        yield entry
        left -= 1
        if not left:
            return
    raise UserError(
        f"gym task {name}: found {wanted - left} different problems for {split}, want {wanted}: widen its options"
    )


@functools.lru_cache(maxsize=256)
def scoring_task(name: str, options: str) -> Any:
    """The reasoning-gym task that scores answers; the options are JSON."""
    return create_gym_task(name, {"seed": 0, "size": 1}, json.loads(options))


def create_gym_task(name: str, own: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """A task of reasoning-gym. Raises UserError where the options do not fit it."""
    module = import_reasoning_gym()
    try:
        return module.create_dataset(name, **own, **options)
    except (TypeError, ValueError, AssertionError) as e:  # raised by the configs of reasoning-gym
        said = " ".join(str(e).split()) or type(e).__name__
        raise UserError(f"gym task {name}: options {dict(options)} do not fit it: {said}") from None


@functools.cache
def import_reasoning_gym() -> Any:
    """The module reasoning_gym. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("reasoning_gym")  # it takes seconds to import, and is optional
    except ImportError as e:
        raise UserError(f"gym tasks need reasoning-gym ({e}): pip install -r requirements-gym.txt") from None


def check_allowed(name: str) -> None:
    """Raise UserError for a task that is not in ``ALLOWED``."""
    if name in ALLOWED:
        return
    choose = f"choose one of rljax.tasks.datasets.gym.ALLOWED ({len(ALLOWED)} tasks)"
    if name in REFUSED:
        raise UserError(f"gym task {name} failed the audit of reasoning-gym {AUDITED}: {REFUSED[name]}; {choose}")
    near = difflib.get_close_matches(name, ALLOWED, n=1, cutoff=0)
    raise UserError(
        f"gym task {name!r} is not among those audited, did you mean {near[0] if near else '?'}? Or {choose}"
    )


@functools.cache
def check_version() -> None:
    """Log a warning, once, where another version is installed than the one audited."""
    import_reasoning_gym()
    version = importlib.metadata.version("reasoning-gym")
    if version != AUDITED:
        LOG.warning(
            f"gym: reasoning-gym {version} is installed, the tasks were audited with {AUDITED}: "
            "python -m tools.audit_gym audits yours, pip install -r requirements-gym.txt brings that one"
        )
