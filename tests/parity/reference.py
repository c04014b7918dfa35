"""What torch and transformers make of a case: its folder, logits, greedy responses and gradients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from . import noise

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}  # the published formulas, nothing fused


def config_of(fields: dict[str, Any]) -> Any:
    return transformers.CONFIG_MAPPING[fields["model_type"]](**{k: v for k, v in fields.items() if k != "model_type"})


def write(folder: Path, fields: dict[str, Any], family: str, seed: int = 0, dtype: str = "float32", **how: Any) -> Any:
    """Save a model of this config with weights by name, in transformers' own format; -> the model as read back."""
    model = transformers.AutoModelForCausalLM.from_config(config_of(fields), dtype=torch.float32, **EAGER)
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    saved = {name: noise.noise(name, x.shape, family, seed) for name, x in load_file(path).items()}
    save_file({name: torch.from_numpy(x) for name, x in saved.items()}, path, metadata={"format": "pt"})
    if how or dtype != "float32":
        model = read(folder, dtype)  # which leaves a router's correction bias in float32, as published files have it
        path.unlink()
        model.save_pretrained(folder, **how)
    return read(folder, dtype)


def read(folder: Path, dtype: str = "float32") -> Any:
    """The model in ``folder``; every tensor in it must have its place, and every place its tensor."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), output_loading_info=True, **EAGER
    )
    assert not any(info.values()), info
    return model.eval()


def written(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor in the folder's files, as it is stored."""
    return {name: x for path in sorted(folder.glob("*.safetensors")) for name, x in load_file(path).items()}


@torch.no_grad()
def logits(model: Any, tokens: np.ndarray) -> np.ndarray:
    return model(torch.from_numpy(tokens), use_cache=False).logits.float().numpy()


def greedy(model: Any, prompt: np.ndarray, count: int = 64) -> tuple[np.ndarray, float]:
    """The likeliest ``count`` tokens after ``prompt`` [P], with the cache, and the closest that any was to the second."""
    tokens = torch.from_numpy(prompt[None])
    model.generation_config.eos_token_id = None  # None among the arguments would be filled in from here
    out = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        generation_config=transformers.GenerationConfig(
            max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True
        ),
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert len(out.logits) == count
    best = torch.stack(out.logits)[:, 0].topk(2).values
    return out.sequences[0, len(prompt) :].numpy(), float((best[:, 0] - best[:, 1]).min())


def clear_responses(model: Any, vocab_size: int, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Two prompts whose greedy responses hang on no rounding and are not one token again and again; the responses."""
    for attempt in range(1, 200):
        prompts = [noise.tokens(1, n, vocab_size, 1000 * seed + attempt)[0] for n in (5, 9)]
        responses, margins = zip(*(greedy(model, p) for p in prompts), strict=True)
        if min(margins) > 2e-3 and min(len(set(r.tolist())) for r in responses) >= 6:
            return [p.tolist() for p in prompts], [r.tolist() for r in responses]
    raise ValueError("no prompt with a clear response")


def gradient(model: Any, tokens: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Gradient of the mean log-probability of the tokens after the first, by the names of the tensors on disk.

    The gradients take the parameters' places and are saved: transformers' writer then splits and names them as it does
    the weights. What is no parameter (a router's correction bias) has gradient 0. Spoils the model.
    """
    ids = torch.from_numpy(tokens)
    logprobs = torch.log_softmax(model(ids, use_cache=False).logits[:, :-1].float(), -1)
    logprobs.gather(-1, ids[:, 1:, None]).mean().backward()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.zeros_like(p) if p.grad is None else p.grad)
        for name, b in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                b.zero_()
    model.save_pretrained(folder)
    return {name: x.float().numpy() for name, x in tensors(folder).items()}
