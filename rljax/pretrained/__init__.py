"""Real models in, your policy out: Hugging Face folders of the Llama, Qwen, Gemma and DeepSeek families.

folder.py    config.json and safetensors -> (Config, params)      export.py   the way back
tensors.py   the file format          keys.py, fields.py   what families share
llama.py qwen.py gemma.py deepseek.py   a family: a map of its config, a map of its tensors' names, and no attention
"""

from pathlib import Path
from typing import Any

from rljax.errors import UserError
from rljax.pretrained.export import family_of, save, vacant
from rljax.pretrained.folder import COMPUTED, FAMILIES, read_config, read_params
from rljax.text.hf_tokenizer import UNCONVERTED, FolderTokenizer
from rljax.text.hf_tokenizer import load as load_tokenizer
from rljax.transformer import Config, Params

SIGNS = ("tokenizer.json", "tokenizer_config.json", *UNCONVERTED)  # a folder with one has a tokenizer


def load(path: str | Path, dtype: str | None = None, **how: Any) -> tuple[Config, Params, FolderTokenizer | None]:
    """(Config, params, tokenizer) of a Hugging Face folder; the tokenizer is None where the folder has none.

    ``dtype`` is that of weights and activations ("float32", "bfloat16", "float16"; None: the folder's, tensor by tensor),
    ``how`` sets other fields of the Config that say how it is computed, such as ``scan_layers``, or where: ``layout``. Raises UserError in one line for whatever is wrong with the folder.
    """
    asked = {"weight_dtype": dtype, "dtype": dtype} if dtype else {}
    config = read_config(path, **(asked | how))
    has_one = any((Path(path).expanduser() / name).is_file() for name in SIGNS)
    tokenizer = load_tokenizer(path) if has_one else None
    if tokenizer is not None:
        check_together(config, tokenizer, str(path))
    return config, read_params(path, config, dtype or how.get("weight_dtype")), tokenizer


def check_together(config: Config, tokenizer: FolderTokenizer, path: str) -> None:
    """Raise UserError where the tokens that begin, end or fill texts are not in the model's vocabulary.

    Others may lie beyond it: a tokenizer often has one for images, that a model of texts alone does not know.
    """
    ids = [tokenizer.pad, *tokenizer.stop_ids, *tokenizer.begin]
    if max(ids) >= config.vocab_size:
        raise UserError(
            f"{path}: its tokenizer begins or ends texts with token {max(ids)}, its model has a vocabulary of "
            f"{config.vocab_size}: they do not belong together"
        )
