"""The data sets by name, and how to load one: downloaded, from your own folder or file, or generated."""

import contextlib
import difflib
import functools
import io
import logging
import os
from pathlib import Path
from typing import Any

from rljax.errors import UserError
from rljax.tasks.datasets import builder, gym, sources
from rljax.tasks.datasets.sources import File, Row, Source

LOG = logging.getLogger(__name__)
OWN_FILES = Source(
    "Questions of your own.",
    {split: File(f"{split}.jsonl") for split in ("train", "validation", "test")},
    sources.parse_own,
)


def load_dataset(name: str, path: str = "", data_dir: str = "", own_data_dir: str = "") -> dict[str, list[Row]]:
    """The records of each split of a data set, in the order of the original.

    ``name`` is a key of ``SOURCES``, "gym/TASK", or a path: a .jsonl file, or a folder with train.jsonl and so on. ``path`` is
    a folder with the files of the data set, or with one folder for each data set; "" downloads them once. Prepared data
    lies in ``data_dir``; "" is the default of TensorFlow Datasets. What is prepared from your own files lies in
    ``own_data_dir``; "" is ``data_dir``. Raises UserError where a data set is unknown, cannot be downloaded, or has a row
    that cannot be read. Records whose right answer cannot be read are dropped; the log counts them.
    """
    found = load_rows(name, path, data_dir, own_data_dir)
    return {split: drop_unreadable(name, split, rows) for split, rows in found.items()}


@functools.lru_cache(maxsize=16)
def load_rows(name: str, path: str, data_dir: str, own_data_dir: str) -> dict[str, list[Row]]:
    """All records of each split, with those whose answer cannot be read."""
    if name.startswith("gym/"):
        return {split: list(gym.make_rows(name[4:], split)) for split in builder.GENERATED_SPLITS}
    if name == "gsm8k" and not path:
        return load_tfds_gsm8k(data_dir)
    if name in SOURCES:
        source, there = SOURCES[name], Path(path).expanduser() / name
        path = str(there) if path and os.path.isdir(there) else path
    elif os.path.exists(Path(name).expanduser()):  # Path.exists raises for a name that is too long
        name, source, path = "own", OWN_FILES, name
    elif looks_like_path(name):
        raise UserError(f"data set: there is no file {name} (seen from {Path.cwd()})")
    else:
        near = difflib.get_close_matches(name, SOURCES, 1)
        hint = f"did you mean {near[0]!r}? Choose" if near else "choose"
        raise UserError(
            f"data set {name!r} is unknown: {hint} from {sorted(SOURCES)}, gym/TASK, or the path of a .jsonl file"
        )
    path = "" if source.generate else path
    made = builder.prepare_dataset(name, source, path, (own_data_dir or data_dir) if path else data_dir)
    return {split: builder.read_rows(made, split) for split in made.info.splits}


def looks_like_path(name: str) -> bool:
    """Whether a name means a file or folder of the user's, not a data set by name."""
    return "/" in name or name.startswith("~") or Path(name).suffix in (".jsonl", ".json", ".gz")


def load_tfds_gsm8k(data_dir: str) -> dict[str, list[Row]]:
    """GSM8K through TensorFlow Datasets' own builder, which downloads it once."""
    try:
        import tensorflow_datasets as tfds  # slow to import, and not needed for local files
        import tensorflow_datasets.text  # noqa: F401  registers gsm8k
        from tensorflow_datasets.core import constants

        data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or constants.DATA_DIR
        if not (Path(data_dir).expanduser() / "gsm8k").exists():
            builder.check_network(SOURCES["gsm8k"])
        kwargs = {"file_format": "array_record"}  # the default format needs TensorFlow
        source = lambda split: tfds.data_source("gsm8k", split=split, data_dir=data_dir, builder_kwargs=kwargs)
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # the library announces what it downloads
            read: dict[str, list[Any]] = {split: list(source(split)) for split in ("train", "test")}
    except Exception as e:
        cause = (str(e).strip() or "no reason given").splitlines()[0][:200]
        raise UserError(
            f"data set gsm8k: could not be downloaded ({type(e).__name__}: {cause}); {builder.folder_hint(SOURCES['gsm8k'])}"
        ) from None
    out: dict[str, list[Row]] = {}
    for split, rows in read.items():
        for n, row in enumerate(rows):
            text = {k: v.decode() if isinstance(v, bytes) else v for k, v in row.items()}
            try:
                out.setdefault(split, []).append(sources.parse_gsm8k(text) | {"number": n})
            except ValueError as e:
                raise UserError(f"data set gsm8k: TensorFlow Datasets, split {split}, example {n}: {e}") from None
    return out


def drop_unreadable(name: str, split: str, rows: list[Row]) -> list[Row]:
    """The records whose right answer can be read. The log names the others."""
    kept = [r for r in rows if r["answer"]]
    if len(kept) < len(rows):
        lost = [r["id"] or f"number {r['number']}" for r in rows if not r["answer"]]
        LOG.warning(
            f"data set {name}: dropped {len(lost)} of {len(rows)} {split} questions whose answer cannot be read: "
            f"{', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}"
        )
    return kept


RAW = "https://raw.githubusercontent.com"  # every file pinned to a commit
QWEN = f"{RAW}/QwenLM/Qwen2.5-Math/a45202bd16f1ec06f433442dc1152d0074773465/evaluation/data"
NEMO = f"{RAW}/NVIDIA/NeMo-Skills/0b012df8a09cd4730d31b16e90a0d8f13d145fb8/nemo_skills/dataset"
SIMPLE_RL = f"{RAW}/hkust-nlp/simpleRL-reason/cf1c7858bfc145a27aa733e75d930d34f0d318a6/examples/simplelr_math_eval/data"
GOOGLE = f"{RAW}/google-research/google-research/30adf0ec5f35f9609c2f1d896005e184195d9146/mbpp"
GSM = f"{RAW}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data"
HUMAN_EVAL = f"{RAW}/openai/human-eval/6d43fb980f9fee3c892a914eda09951f772ad10d/data"


def file(folder: str, name: str, size: int, sha256: str, own_name: str = "") -> File:
    return File(own_name or name, f"{folder}/{name}", size, sha256)


# fmt: off
MBPP = file(GOOGLE, "mbpp.jsonl", 563_743, "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f")
MBPP_SPLITS = {"train": range(601, 975), "validation": range(511, 601), "test": range(11, 511)}  # 1 to 10: for prompts
SOURCES: dict[str, Source] = {
    "gsm8k": Source("Grade school mathematics (arXiv 2110.14168), MIT.", {
        "train": file(GSM, "train.jsonl", 4_166_206, "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465"),
        "test": file(GSM, "test.jsonl", 749_738, "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"),
    }, sources.parse_gsm8k),
    "math": Source("Competition mathematics by level and subject (arXiv 2103.03874), MIT.", {
        "train": file(QWEN, "math/train.jsonl", 7_020_123, "5b2887ab712c936a5fb79bdcfc917d5c5da888d4a7b35cff92ee3fd2ba15caab", "train.jsonl"),
        "test": file(QWEN, "math/test.jsonl", 4_416_980, "0e9257f4e3481c45c1ba0ae3b09a14c7a751ed30a018f41f317c64537dac8a5a", "test.jsonl"),
    }, sources.parse_mathematics),
    "math500": Source("500 of MATH's test problems (arXiv 2305.20050), MIT.", {
        "test": file(SIMPLE_RL, "math500/test.jsonl", 446_564, "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132", "test.jsonl"),
    }, sources.parse_mathematics),
    "aime24": Source("AIME I and II of 2024, 30 problems; their text is the MAA's.", {
        "test": file(QWEN, "aime24/test.jsonl", 156_944, "af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac", "test.jsonl"),
    }, sources.parse_mathematics, attempts=64),
    "aime25": Source("AIME I and II of 2025, 30 problems; their text is the MAA's.", {
        "test": file(NEMO, "aime25/test.txt", 61_949, "b672f9c6660b68dd42f5fc705b17405f24eaa9991c98991d63463c6b683468a8", "test.jsonl"),
    }, sources.parse_mathematics, attempts=64),
    "amc23": Source("AMC 12 of 2023, 40 problems with whole answers; their text is the MAA's.", {
        "test": file(QWEN, "amc23/test.jsonl", 27_631, "43707e1ca784602d8479de24ee8ce36609dbebc46dd152b0b12a46611aa898a4", "test.jsonl"),
    }, sources.parse_mathematics),
    "mbpp": Source("Mostly basic Python problems (arXiv 2108.07732), CC BY 4.0.", dict.fromkeys(MBPP_SPLITS, MBPP), sources.parse_mbpp,
        select=lambda split, row: row.get("task_id") in MBPP_SPLITS[split]),
    "humaneval": Source("Python functions to complete (arXiv 2107.03374), MIT.", {
        "test": file(HUMAN_EVAL, "HumanEval.jsonl.gz", 44_877, "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"),
    }, sources.parse_human_eval),
    "countdown": Source("A target from three or four numbers; made here.", {}, sources.parse_own, generate=sources.generate_countdown),
}
# fmt: on
