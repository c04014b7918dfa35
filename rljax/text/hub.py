"""The folder of a Hugging Face model: one that exists, or a name on the Hugging Face hub that is downloaded."""

import os
import re
from pathlib import Path

from rljax.errors import UserError
from rljax.text.gguf_files import is_gguf

HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
HUB_FILES = ("*.json", "*.jinja", "*.safetensors")  # what is read of a model; nothing else is downloaded
NOT_READ = ("*/*", "consolidated*")  # subfolders, and the same weights in another layout
HUB_TIMEOUT = 10.0  # seconds that a request for the list of files may take


def resolve_folder(name_or_path: str | Path) -> Path:
    """The folder of a model: an existing folder or GGUF file itself, or the local copy of ``org/name`` or ``org/name@revision``.

    A hub name is downloaded into the user's own cache, by ``huggingface_hub``, which honours HF_HOME, HF_ENDPOINT, HF_TOKEN
    and HF_HUB_OFFLINE. What the cache holds is not downloaded again, and is used where the hub cannot be reached. Raises
    UserError in one line where there is neither such a folder nor such a model.
    """
    folder = Path(name_or_path).expanduser()
    if os.path.exists(folder):  # Path.exists raises for a name that is too long
        return folder
    named = HUB_NAME.fullmatch(str(name_or_path))
    if named is None or is_gguf(folder):
        raise UserError(
            f"there is no folder {name_or_path}: give the folder of a Hugging Face model, or its name org/name, or a GGUF file"
        )
    from huggingface_hub import snapshot_download  # half a second

    try:
        return Path(
            snapshot_download(
                named["repo"],
                revision=named["revision"],
                allow_patterns=list(HUB_FILES),
                ignore_patterns=list(NOT_READ),
                etag_timeout=HUB_TIMEOUT,
            )
        )
    except Exception as e:  # network, proxy, unknown name, no access, no space: the library raises many kinds
        raise UserError(
            f"there is no folder {name_or_path}, and it could not be fetched from the Hugging Face hub "
            f"({type(e).__name__}): {first_cause(e)}"
        ) from None


def first_cause(error: BaseException) -> str:
    """The message of the error that came first, in one line."""
    while before := error.__cause__ or error.__context__:
        error = before
    return " ".join(str(error).split()) or type(error).__name__
