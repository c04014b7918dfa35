"""A real model by RL on a bare machine, dry: a tiny model is packed, widened and trained without the packages that lack there."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_folder

from benchmarks import packed_weights
from rljax import pretrained
from rljax.errors import UserError
from rljax.json_lines import read_json_lines
from rljax.text.hf_tokenizer import load_tokenizer

ROOT = Path(__file__).parent.parent
MISSING = ("ml_collections", "tensorflow_datasets", "array_record", "tensorboardX", "math_verify")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = dict(width=64, head_width=16, ff_width=128, max_length=1024)
    return tiny_folder.make(tmp_path_factory.mktemp("model") / "tiny", **sizes)


@pytest.mark.parametrize("bits", [3, 4])
def test_a_packed_matrix_comes_back_but_for_its_steps(bits):
    x = np.random.default_rng(0).normal(size=(6, 256)).astype(np.float32)
    packed = packed_weights.pack_matrix(x, bits)
    again = packed_weights.unpack_matrix(packed)
    assert len(packed.codes) == x.size * bits // 8
    groups = x.reshape(-1, packed_weights.GROUP)
    step = np.ptp(groups, 1) / (2**bits - 1)
    errors = np.abs(again - x).reshape(groups.shape)
    # half a step, more where the ends of a group were cut for a finer step, and the rounding of low and step to 8 bits
    assert (np.sqrt((errors**2).mean(1)) < 0.36 * step).all()
    shared = packed_weights.unpack_matrix(packed_weights.pack_matrix(again, bits))
    assert np.abs(shared - again).mean() < 0.25 * errors.mean(), "what is packed already hardly changes"


def test_fewer_tokens_are_a_tokenizer_of_the_same_kind(folder, tmp_path):
    text = (folder / "tokenizer.json").read_text()
    about = json.loads(text)
    about["added_tokens"] = []
    few = json.loads(packed_weights.shorten_tokenizer(json.dumps(about), 270, "here"))
    assert max(few["model"]["vocab"].values()) == 269 and 0 < len(few["model"]["merges"]) < len(
        about["model"]["merges"]
    )
    (tmp_path / "tokenizer.json").write_text(json.dumps(few))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "!"}))
    less, whole = load_tokenizer(tmp_path), load_tokenizer(folder)
    line = "Ann has 12 clips and gets 25 more. naïve 数学"
    assert less.decode(less.encode(line)) == line and len(less.encode(line)) > len(whole.encode(line))
    with pytest.raises(UserError, match="here: the token '<|endoftext|>' would be left out"):
        packed_weights.shorten_tokenizer(text, 270, "here")
    with pytest.raises(UserError, match="only byte-level BPE"):
        packed_weights.shorten_tokenizer(json.dumps(about | {"pre_tokenizer": None}), 270, "here")


@pytest.mark.exhaustive
def test_a_tiny_model_is_packed_and_trained_without_the_packages_that_a_bare_machine_lacks(folder, tmp_path):
    run = lambda *arguments: (
        subprocess.run(
            [sys.executable, "-c", CODE, *map(str, arguments)], cwd=ROOT, text=True, capture_output=True, check=True
        ).stdout
    )
    said = json.loads(run("--pack", folder, tmp_path / "tiny.npz"))
    assert said["bytes"] == (tmp_path / "tiny.npz").stat().st_size and 0 < said["relative_error"] < 0.2
    packed_weights.unpack_folder(tmp_path / "tiny.npz", tmp_path / "wide")
    config, params, tokenizer = pretrained.load(tmp_path / "wide")
    assert config.weight_dtype == "bfloat16" and config.vocab_size == 320
    assert tokenizer.encode("Ann has 12") == load_tokenizer(folder).encode("Ann has 12")
    sizes = ["--steps=2", "--eval_every=1", "--prompts=2", "--group=2", "--tokens=6", "--problems=2", "--examples=1"]
    told = run(tmp_path / "tiny.npz", f"--out={tmp_path / 'out'}", "--rows=2", *sizes)
    assert "step    2" in told and told.count("eval/pass@1") == 3
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"about.json", "metrics.jsonl", "samples_first.jsonl", "samples_last.jsonl", "learning.png"}
    records = read_json_lines(tmp_path / "out" / "metrics.jsonl")
    assert [r["step"] for r in records if "train/reward" in r] == [1, 2] and all(r["stage"] == "rl" for r in records)
    assert all(np.isfinite(r["train/grad_norm"]) for r in records if "train/reward" in r)


CODE = f"""
import sys
for name in {MISSING}:
    sys.modules[name] = None  # importing it fails
import jax
jax.config.update("jax_disable_most_optimizations", True)
from benchmarks import real_rl
sys.exit(real_rl.main(sys.argv[1:]))
"""
