"""The checks and measurements of a machine's accelerator, tiny, on the CPU; and that each check can fail."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import accelerator, accelerator_speed
from benchmarks import accelerator_parts as parts
from benchmarks.accelerator_parts import TINY_SIZES, Result, Skipped
from rljax import sampler, transformer
from rljax.planning.published_models import PUBLISHED_MODELS


@pytest.fixture(autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)  # JAX's default


def verdicts(lines):
    return {line.name: line.ok for line in lines if isinstance(line, Result)}


@pytest.mark.exhaustive
def test_the_whole_dry_run_passes_and_writes_its_keys(tmp_path, capsys):
    path = tmp_path / "report.json"
    assert accelerator.main(["--tiny", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert set(report) == {
        "machine", "tiny", "budget", "checks", "measurements", "skipped", "errors", "parts", "seconds",
    }  # fmt: skip
    assert set(report["machine"]) == {
        "backend", "device", "devices", "memory_gb", "jax", "python", "missing",
    }  # fmt: skip
    assert len(report["checks"]) == 13 and all(line["ok"] for line in report["checks"])
    found = {line["name"]: line for line in report["measurements"]}
    assert {
        "copy bandwidth",
        "matrix rate bfloat16, default precision",
        "matrix rate float32, default precision",
        "matrix rate float32, highest precision",
        "tiny decode",
        "tiny update",
        "configs/shop.py, 1 run vmapped",
        "configs/shop.py, 2 runs vmapped",
        "configs/shop.py, 1 run, planned peak memory",
    } == set(found)
    assert all(line["value"] > 0 for line in found.values())
    assert found["tiny decode"]["share"] > 0 and found["tiny update"]["share"] > 0
    skipped = {line["name"] for line in report["skipped"]}
    assert {"attention cudnn", "attention splash", "tiny update, measured peak memory"} <= skipped
    printed = capsys.readouterr().out
    assert "missing here" in printed and all(name in printed for name in (*found, *skipped))


@pytest.mark.exhaustive
def test_a_sampler_with_wrong_logprobs_is_reported(monkeypatch):
    real = sampler.sample

    def perturbed(*a, **k):
        rollout = real(*a, **k)
        return rollout.replace(logprobs=rollout.logprobs.at[1, 2].add(0.2))

    monkeypatch.setattr(sampler, "sample", perturbed)
    assert set(verdicts(parts.check_logprobs(TINY_SIZES)).values()) == {False}


@pytest.mark.exhaustive
def test_a_wrong_gradient_on_the_accelerator_is_reported(monkeypatch):
    real, calls = parts.policy_gradient, []

    def perturbed(*a):
        calls.append(a)
        grads = real(*a)
        return jax.tree.map(lambda g: 1.01 * g, grads) if len(calls) == 2 else grads  # the first is the CPU's

    monkeypatch.setattr(parts, "policy_gradient", perturbed)
    assert list(verdicts(parts.check_gradients(TINY_SIZES)).values()) == [False]


@pytest.mark.exhaustive
def test_the_compared_gradient_is_not_zero(monkeypatch):
    seen, real = [], parts.policy_gradient
    monkeypatch.setattr(parts, "policy_gradient", lambda *a: seen.append(real(*a)) or seen[-1])
    list(parts.check_gradients(TINY_SIZES))
    assert all(float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(seen[0]))


@pytest.mark.exhaustive
def test_a_kernel_with_a_wrong_output_is_reported_and_the_others_still_pass(monkeypatch):
    from rljax.transformer import attention

    real = attention.attend_by_jax_kernel
    monkeypatch.setattr(attention, "attend_by_jax_kernel", lambda *a: 1.5 * real(*a))
    found = verdicts(parts.check_kernels(TINY_SIZES))
    wrong = {name for name, ok in found.items() if not ok}
    assert {name for name in found if " xla " in name and "float32" in name} <= wrong
    assert not any("attention_chunk" in name for name in wrong)


@pytest.mark.exhaustive
def test_a_kernel_that_does_not_compile_fails_its_line_and_the_others_are_checked(monkeypatch):
    from rljax.transformer import attention

    def broken(*a):
        raise RuntimeError("no such kernel\nsecond line")

    monkeypatch.setattr(attention, "attend_by_jax_kernel", broken)
    found = verdicts(parts.check_kernels(TINY_SIZES))
    assert any(name.endswith("RuntimeError: no such kernel") and ok is False for name, ok in found.items())
    assert any("attention_chunk" in name and "bfloat16" in name and ok for name, ok in found.items())


def test_a_seed_that_is_ignored_and_one_that_is_not_kept_are_reported(monkeypatch):
    real = parts.sample
    monkeypatch.setattr(parts, "sample", lambda config, params, sizes, seed=0: real(config, params, sizes, 0))
    assert list(verdicts(parts.check_seeds(TINY_SIZES)).values()) == [True, False]
    fresh = iter((0, 2, 1))
    monkeypatch.setattr(parts, "sample", lambda config, params, sizes, seed=0: real(config, params, sizes, next(fresh)))
    assert list(verdicts(parts.check_seeds(TINY_SIZES)).values()) == [False, True]


def test_a_value_that_is_not_a_number_fails():
    assert parts.check("x", float("nan"), 1.0).ok is False
    assert parts.check("x", 1.0, 1.0).ok is True


def test_a_failing_part_a_missing_package_and_a_spent_budget_are_lines_and_the_rest_runs():
    def broken():
        yield Result("before", 1.0, "s")
        raise ValueError("first line\nsecond line")

    def lacking():
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
        yield

    fine = lambda: iter([Skipped("kernel", "not here"), parts.check("fine", 0, 1)])
    printed: list[str] = []
    out = accelerator.run_parts([("a", broken), ("b", lacking), ("c", fine)], 60, printed.append)
    assert out["errors"] == [{"name": "a", "error": "ValueError: first line"}]
    assert [line["name"] for line in out["skipped"]] == ["b", "kernel"]
    assert "torchvision" in out["skipped"][0]["reason"]
    assert [line["name"] for line in out["measurements"]] == ["before"]
    assert [line["name"] for line in out["checks"]] == ["fine"]
    assert accelerator.failed(out)
    none = accelerator.run_parts([("a", broken)], 0, printed.append)
    assert none["skipped"] == [{"name": "a", "reason": "the budget of 0 s is gone"}] and not none["errors"]
    failing = accelerator.run_parts([("c", lambda: iter([parts.check("wrong", 2, 1)]))], 60, printed.append)
    assert accelerator.failed(failing) and any(line.startswith("FAILED") for line in printed)


@pytest.mark.parametrize("ours, published", [("Qwen2.5-0.5B", "qwen25_0.5b"), ("Qwen2.5-1.5B", "qwen25_1.5b")])
def test_the_measured_shapes_are_the_published_ones(ours, published):
    assert parts.MODELS[ours] == PUBLISHED_MODELS[published]


def test_the_measured_models_have_the_number_of_weights_in_their_names():
    counted = [transformer.count(jax.eval_shape(lambda m=m: transformer.init(m, jax.random.key(0)))) for m in
               parts.MODELS.values()]  # fmt: skip
    assert [round(n / 1e6) for n in counted] == [135, 494, 1544]


def test_the_bytes_of_a_decode_step_are_weights_and_keys_and_values():
    params = {"w": jnp.zeros((3, 5), jnp.bfloat16)}
    config = parts.with_dtype(parts.TINY, "bfloat16")
    # 2 layers, 2 key heads of width 8, keys and values of 2 bytes; 2 prompts of 8 columns, 4 responses of 8 half full
    assert accelerator_speed.decode_bytes(config, params, TINY_SIZES) == 30 + (16 + 16) * 2 * 2 * 2 * 8 * 2
