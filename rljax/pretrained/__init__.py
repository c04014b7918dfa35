"""Hugging Face models in and out: folders of the Llama, Qwen, Gemma and DeepSeek families.

    folder.py              read_config and read_params: config.json and safetensors -> (Config, params)
    export.py              save: (Config, params, tokenizer) -> a folder that transformers and vLLM load
    llama.py qwen.py gemma.py deepseek.py   one family each: config_from_hf, config_to_hf, tensor_keys
    config_fields.py       what the families' config.json files have in common
    tensor_names.py        names and storage order of tensors, what the families have in common
    unused_tensors.py      tensors that the model does not need, each looked at before it is left out
    safetensors_files.py   safetensors files by the ``safetensors`` package
    gguf_models.py         a GGUF file of llama.cpp as the folder that it was made from
    tensor_files.py        opens whichever of the two a tensor is in

Wherever a folder is wanted, the name of a model on the Hugging Face hub will do (``resolve_folder``), or a GGUF file.
"""

from pathlib import Path
from typing import Any

from rljax.errors import UserError
from rljax.pretrained.export import check_empty_folder, choose_model_type, save
from rljax.pretrained.folder import COMPUTE_FIELDS, FAMILIES, read_config, read_params
from rljax.text.gguf_files import is_gguf
from rljax.text.gguf_tokenizer import has_tokenizer
from rljax.text.hf_tokenizer import UNCONVERTED, FolderTokenizer, load_tokenizer
from rljax.text.hub import resolve_folder
from rljax.transformer import Config, Params

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    *UNCONVERTED,
)  # a folder with one of these files has a tokenizer


def load(path: str | Path, dtype: str | None = None, **options: Any) -> tuple[Config, Params, FolderTokenizer | None]:
    """(Config, params, tokenizer) of a Hugging Face folder, hub name or GGUF file; the tokenizer is None where there is none.

    ``dtype`` is the dtype of weights and activations ("float32", "bfloat16", "float16"; None: the folder's, tensor by
    tensor). ``options`` set other fields of the Config that say how it is computed: ``scan_layers``, ``layout`` and so on.
    Raises UserError in one line for whatever is wrong with the folder.
    """
    path = resolve_folder(path)
    dtypes = {"weight_dtype": dtype, "dtype": dtype} if dtype else {}
    config = read_config(path, **(dtypes | options))
    in_folder = any((path / name).is_file() for name in TOKENIZER_FILES)
    tokenizer = load_tokenizer(path) if in_folder or (is_gguf(path) and has_tokenizer(path)) else None
    if tokenizer is not None:
        check_vocabulary(config, tokenizer, str(path))
    return config, read_params(path, config, dtype or options.get("weight_dtype")), tokenizer


def check_vocabulary(config: Config, tokenizer: FolderTokenizer, path: str) -> None:
    """Raise UserError where a token that begins, ends or pads texts is not in the model's vocabulary.

    Other tokens may be beyond it: a tokenizer often has a token for images, which a text-only model does not know.
    """
    ids = [tokenizer.pad, *tokenizer.stop_ids, *tokenizer.begin_ids]
    if max(ids) >= config.vocab_size:
        raise UserError(
            f"{path}: the tokenizer begins or ends texts with token {max(ids)}, but the model has a vocabulary of "
            f"{config.vocab_size}: they do not belong together"
        )
