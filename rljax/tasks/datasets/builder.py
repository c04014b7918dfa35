"""Prepared data sets in array_record files, as TensorFlow Datasets writes them, without TensorFlow.

A data set is prepared once: it is downloaded (size and checksum must match) or read from your own files, parsed, and written
below ``data_dir``. The name of a prepared set holds a hash of your files, so changed files are prepared again.
"""

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import logging
import os
import socket
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.tasks.datasets import sources
from rljax.tasks.datasets.sources import FIELDS, Row, Source
from rljax.verifiers import answers, case_validation

LOG = logging.getLogger(__name__)
GENERATED_SPLITS = ("train", "test")
VALIDATION = (
    "tests are parsed "  # in the name of what is prepared from your files: change it when rows are validated anew
)


def prepare_dataset(name: str, source: Source, path: str = "", data_dir: str = "") -> Any:
    """The TFDS builder of a data set whose files are written. ``path`` is your own folder or file; "": download.

    Raises UserError where a file is missing or damaged, a row cannot be read, or a download fails.
    """
    local = find_local_files(name, source, path) if path else {}
    key = f"rljax_{name}" + (f"_{files_hash(local)[:12]}" if path else "")
    try:
        # the default format needs TensorFlow; parquet loses rows
        builder = make_builder_class(key, source, local)(
            data_dir=data_dir or os.environ.get("TFDS_DATA_DIR"), file_format="array_record"
        )
        folder = Path(builder.data_dir)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.exists() and not local:
            check_network(source)
        with (folder.parent / ".lock").open("w") as lock:  # two runs that start at the same time prepare it once
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.redirect_stdout(io.StringIO()):  # the library announces sizes that it does not know
                builder.download_and_prepare()
    except UserError:
        raise
    except Exception as e:  # no network, no disk space, a broken cache: the hint is the same
        cause = next((c for c in exception_chain(e) if isinstance(c, UserError)), None)
        if cause:
            raise cause from None
        said = (str(e).strip() or "no reason given").splitlines()[0][:200]
        raise UserError(
            f"data set {name}: could not be {'read' if local else 'downloaded'} ({type(e).__name__}: {said}); {folder_hint(source)}"
        ) from None
    return builder


def read_rows(builder: Any, split: str) -> list[Row]:
    """All records of a split, in the order of the original."""
    source = builder.as_data_source(split=split)
    found = source.__getitems__(range(len(source))) if len(source) else []
    read = [
        {k: r[k].decode() for k in FIELDS if k != "tests"}
        | {"tests": [t.decode() for t in r["tests"]], "number": int(r["number"])}
        for r in found
    ]
    return sorted(read, key=lambda r: r["number"])  # the files are shuffled


def check_network(source: Source) -> None:
    """Raise OSError at once where the host of the files has no address. The library would retry for minutes."""
    hosts = {urllib.parse.urlsplit(f.url).hostname for f in source.files.values()}
    if not urllib.request.getproxies():  # with a proxy, the proxy resolves the names
        for host in hosts:
            socket.getaddrinfo(host, None)


def folder_hint(source: Source) -> str:
    """What a user can do where a download fails."""
    names = " and ".join(f.name for f in source.files.values())
    if not names:
        return "is there room where --config.task.options.data_dir says?"
    return f"give a folder of your own with --config.task.options.path=FOLDER ({names})"


def exception_chain(e: BaseException) -> Iterator[BaseException]:
    """An exception, its cause, the cause of that, and so on."""
    seen: BaseException | None = e
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def make_builder_class(key: str, source: Source, local: dict[str, Path]) -> Any:
    """The TFDS builder class of one data set, named by its key."""
    import tensorflow_datasets as tfds  # most of a second
    from tensorflow_datasets.core import registered
    from tensorflow_datasets.core.download import checksums

    known: Any = checksums.UrlInfo
    tfds.disable_progress_bar()
    text = {name: tfds.features.Text() for name in FIELDS if name != "tests"}
    more = {"tests": tfds.features.Sequence(tfds.features.Text()), "number": tfds.features.Scalar(np.int64)}

    with registered.skip_registration():

        class Questions(tfds.core.GeneratorBasedBuilder):
            name = key
            VERSION = tfds.core.Version(sources.VERSION)
            # TFDS would read these from a file of checksums beside this one
            url_infos = {f.url: known(f.size, f.sha256, f.name) for f in source.files.values() if f.sha256}

            def _info(self) -> Any:
                features = tfds.features.FeaturesDict(text | more)
                return tfds.core.DatasetInfo(builder=self, description=source.about, features=features)

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                if source.generate:
                    return {split: number_rows(source.generate(split)) for split in GENERATED_SPLITS}
                files = local or {split: Path(dl_manager.download(f.url)) for split, f in source.files.items()}
                return {split: number_rows(read_valid_rows(source, split, file)) for split, file in files.items()}

            def _generate_examples(self, *args: Any) -> Any:
                raise AssertionError("the splits hold their examples")

    return Questions


def number_rows(found: Iterator[Row]) -> Iterator[tuple[int, Row]]:
    """(key, record) as TFDS wants them; the key is the place in the file."""
    for n, row in enumerate(found):
        yield n, row | {"number": n}


def read_valid_rows(source: Source, split: str, file: Path) -> Iterator[Row]:
    """The records of a file. Raises UserError, before the first is given, where a row is bad or one of its tests is."""
    numbered = list(parse_file(source, split, file))
    if not numbered:
        raise UserError(
            f"data set: {file} has no question for the {split} split, so there is nothing to ask: give others"
        )
    code, tests = [(n, row) for n, row in numbered if row["kind"] == "code"], []
    for n, row in code:
        try:
            tests.append(sources.test_cases(row))
        except UserError as e:
            raise UserError(f"data set: {file}, line {n}: {e}") from None
    if code and (found := case_validation.find_invalid_test(tests)):
        raise UserError(f"data set: {file}, line {code[found[0]][0]}: {found[1]}")
    return (row for _, row in numbered)


def parse_file(source: Source, split: str, file: Path) -> Iterator[tuple[int, Row]]:
    """(number of its line, record) of a file of JSON lines, or of one JSON list.

    Raises UserError with the number of a bad line.

    A record whose right answer cannot be read gets an empty answer; ``library.drop_unreadable`` drops it.
    """
    for n, line in enumerate(read_json_rows(file), 1):
        if isinstance(line, bytes) and not line.strip():
            continue
        try:
            given = json.loads(line) if isinstance(line, bytes) else line
            if not isinstance(given, dict):
                raise ValueError('want an object with "question" and "answer"')
            if source.select and not source.select(split, given):
                continue
            found = source.parse(given)
            json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate cannot be stored
        except (ValueError, RecursionError) as e:
            raise UserError(f"data set: {file}, line {n}: {e}") from None
        if found is not None:
            readable = found["kind"] != "math" or answers.is_readable(found["answer"])
            yield n, found if readable else found | {"answer": ""}


def read_json_rows(file: Path) -> list[Any]:
    """The lines of a JSON lines file, as bytes, also empty ones, or the elements of one JSON list; .gz is unpacked."""
    try:
        data = file.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"data set: cannot read {file}: {getattr(e, 'strerror', None) or e}") from None
    if data.lstrip()[:1] == b"[" and file.suffix == ".json":
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as e:
            raise UserError(f"data set: {file}: {e}") from None
    return data.split(b"\n")  # not splitlines: strings in JSON may hold other line separators


def find_local_files(name: str, source: Source, path: str) -> dict[str, Path]:
    """The user's own file for each split: from a folder with the published names, or one file for the first split.

    Raises UserError where one is missing. A file that differs from the published one is used, with a warning.
    """
    folder = Path(path).expanduser()
    if folder.is_file():
        return {next(iter(source.files)): folder}
    out = {}
    for split, file in source.files.items():
        names = (file.name, Path(file.url).name or file.name, f"{split}.jsonl", file.name.removesuffix(".gz"))
        there = next((folder / name for name in names if (folder / name).is_file()), None)
        if there:
            out[split] = there
            if (
                file.sha256
                and there.name.endswith(".gz") == file.name.endswith(".gz")
                and file_sha256(there) != file.sha256
            ):
                LOG.warning(f"data set {name}: {there} is not the published file (its checksum differs)")
    missing = [f.name for split, f in source.files.items() if split not in out and split in required_splits(source)]
    if missing or not out:
        looked = folder / (missing or [next(iter(source.files.values())).name])[0]
        raise UserError(f"data set {name}: cannot read {looked}: No such file; {folder_hint(source)}")
    return out


def required_splits(source: Source) -> set[str]:
    """The splits that a folder must have: the test split of a published data set, which nothing can replace."""
    return {split for split, f in source.files.items() if f.url and split == "test"}


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def files_hash(files: dict[str, Path]) -> str:
    """A hash of the contents of files by split, in hexadecimal digits."""
    known = "".join(f"{s}{file_sha256(f)}" for s, f in sorted(files.items()))
    return hashlib.sha256(f"{VALIDATION}{known}".encode()).hexdigest()
