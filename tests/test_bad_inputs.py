"""What a person may give that cannot be used: each is one line that names the thing. Every edge value of every key of the config
is tried in test_config_values; here are data lines, checkpoints, records, model folders, prompts and layouts, and some settings.
"""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import pytest
import tiny_folder
from jax.sharding import AbstractMesh

from configs import shop
from experiments import sample
from rljax import pretrained, rewards, tasks, transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.structs import TrainState
from rljax.tasks import mixture, rejection_sampling
from rljax.tasks.datasets import builder, library
from rljax.text.hf_tokenizer import load_tokenizer
from rljax.training import checkpoint, config_files, initial_state, journal, stage_checkpoints
from rljax.training.run import resolve

CASES = {}


def cases(kind, values):
    """Register a case for each value: (what is done with it in a temporary folder, a word that the message must have)."""

    def register(function):
        for n, value in enumerate(values):
            assert (name := f"{kind} {n}: {value!r:.60}") not in CASES
            CASES[name] = functools.partial(function, value)
        return function

    return register


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint and a model folder that are whole."""
    folder = tmp_path_factory.mktemp("made")
    manager = checkpoint.open_manager(folder / "run" / "checkpoints" / "rl")
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(step=zero + 4, params={"w": jnp.ones(3)}, opt_state=(), key=jax.random.key(0), cursor=zero)
    checkpoint.save(manager, 4, state)
    manager.wait_until_finished()
    manager.close()
    tiny_folder.make(folder / "model")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_one_line(name, folder):
    with pytest.raises(UserError) as caught:
        CASES[name](folder)
    said = str(caught.value)
    assert said.strip() and "\n" not in said and len(said) < 600 and "Traceback" not in said


def test_there_are_at_least_120_of_them_and_what_they_spoil_is_good_before(folder):
    assert len(CASES) >= 120
    read_own(folder, b'{"question": "1 + 1?", "answer": "2"}')
    read_samples(folder, b'{"index": 0, "response": "answer 1 2"}')
    load_step(folder)
    read_folder(folder)
    sample.read_prompt(tasks.make_task("shop"), "Ben pays 14 for two of 6 3 2 11 9?")
    sharding.weight_shardings(transformer.Config(vocab_size=16, layout=layout_of(heads="tensor")))


@pytest.mark.parametrize(
    "change, cause",
    [
        ({"model.max_length": 64}, r"window is 64 \(model.max_length\)"),
        ({"rl.algorithm": "dapo", "rl.group_size": 1}, "'grpo' of rl.algorithm=dapo"),
        ({"rl.algorithm": "maxrl", "rl.reward": "correct + length"}, "'maxrl' of rl.algorithm=maxrl"),
        ({"rl.prompts": 3, "rl.updates": 5}, "rl.prompts=3 x rl.group_size=16"),
        ({"rl.top_k": 5, "rl.keep_sampling_mask": False}, "^rl.top_k=5: "),
        ({"task.name": "fruit"}, "^task.name=fruit: unknown option .* --config fruit"),
        ({"task.options.prices": 7}, "shop' with these task.options have up to 193 tokens"),
    ],
    ids=str,
)
def test_a_message_names_the_setting_that_was_typed_where_another_one_does_not_fit_it(change, cause):
    config = shop.get_config()
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=cause):
        resolve(config, "rl")


# Data lines


def read_own(folder, content):
    file = folder / "own.jsonl"
    file.write_bytes(content)
    return list(builder.read_valid_rows(library.OWN_FILES, "train", file))


@cases(
    "own data",
    [
        b"",
        b"\n\n",
        b"{",
        b"5",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"\x00",
        b"[" * 4000,
        b'{"question": "a"}',
        b'{"answer": "a"}',
        b'{"question": 5, "answer": "a"}',
        b'{"question": null, "answer": "a"}',
        b'{"question": "", "answer": "a"}',
        b'{"question": "a", "answer": []}',
        b'{"question": "a", "answer": {"b": 1}}',
        b'{"question": "\\ud800", "answer": "5"}',
        b'{"question": "a", "tests": []}',
        b'{"question": "a", "tests": "assert f(1)"}',
        b'{"question": "a", "tests": [5]}',
        b'{"question": "a", "tests": [["1"]]}',
        b'{"question": "a", "tests": [["1", 2]]}',
        b'{"question": "a", "tests": ["assert ("]}',
        b'{"question": "a", "tests": ["1 + 1"]}',
        b'{"question": "a", "tests": ["assert f(1) == 1\\u0000"]}',
        b'{"question": "a", "tests": ["assert f(1) == 1"], "setup": 5}',
        b'{"question": "a", "tests": ["assert f(1) == 1"], "entry": ["f"]}',
        b'{"question": "1?", "answer": "1"}\n{"question": "2?"}',
    ],
)
def bad_row(content, folder):
    read_own(folder, content)


def read_samples(folder, content):
    file = folder / "samples.jsonl"
    file.write_bytes(content + b"\n")
    return rejection_sampling.read_sample_lines(str(file))


@cases(
    "sft.file",
    [
        b"{",
        b"5",
        b"[]",
        b"\xff",
        b"\x00",
        b'{"index": 0}',
        b'{"response": "a"}',
        b'{"index": "0", "response": "a"}',
        b'{"index": -1, "response": "a"}',
        b'{"index": 1.5, "response": "a"}',
        b'{"index": true, "response": "a"}',
        b'{"index": 2147483648, "response": "a"}',
        b'{"index": 0, "response": 5}',
        b'{"index": 0, "response": null}',
        b'{"index": 0, "response": "a"}\n\xe2\x80\xa8',
    ],
)
def bad_sample(content, folder):
    read_samples(folder, content)


@cases("mixture", ["", "+", "math +", "math + math", "-1*math", "nan*math", "x*math", "0*math", "2*", "math gsm8k+"])
def bad_mixture(text, folder):
    mixture.load_splits(mixture.Options(datasets=text, path=str(folder / "nowhere")))


@cases("data set", ["nowhere.jsonl", "./nowhere", "gsm9k", "gym/nothing", "~/nowhere.json"])
def bad_data_set(name, folder):
    library.load_dataset(name, "", str(folder), str(folder))


# Checkpoints and records


def load_step(folder, step="last", **shapes):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = shapes or {"w": (3,)}
    like = {name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=one) for name, shape in shapes.items()}
    return stage_checkpoints.load_params(folder / "run", "rl", None, like, step)


@cases("step", ["5", "0", "99999999999999999999"])
def bad_step(step, folder):
    load_step(folder, step)


@cases("arrays", [{"w": (4,)}, {"w": ()}, {"w": (3, 1)}, {"w": (3,), "v": (1,)}, {"v": (3,)}])
def bad_arrays(shapes, folder):
    load_step(folder, **shapes)


@cases("start", ["sft", "x", ":sft", "nowhere:rl", "rl@five", "rl@-1", "dpo", "weights@3:x"])
def bad_start(start, folder):
    run = resolve(shop.get_config())
    initial_state.start_params(run, start, folder / "run")


SPOILED = [
    *(
        (name, content)
        for name in ("manifest/metadata", "sums/metadata")
        for content in (b"", b"{", b"[]", b"5", b"\xff", None)
    ),
    ("_CHECKPOINT_METADATA", None),
]


@cases("checkpoint", SPOILED)
def bad_checkpoint(spoiled, folder):
    name, content = spoiled
    step = folder / "run" / "checkpoints" / "rl" / "4"
    if name.startswith("_"):  # without a manifest, which this file would have to explain
        shutil.rmtree(step / "manifest")
    (step / name).unlink() if content is None else (step / name).write_bytes(content)
    load_step(folder)


@cases(
    "metrics.jsonl",
    ["\n", "5\n", "[]\n", "{}\n", '{"stage": "rl"}\n', '{"stage": 5, "step": 1}\n', '{"a"\n{}\n', "\0\n"],
)
def bad_record(text, folder):
    (folder / "metrics.jsonl").write_text(text)
    journal.read_records(folder / "metrics.jsonl")


@cases(
    "config.json", ["", "{", "[]", "5", "{}", '{"config": 5}', '{"config": {"rl": 5}}', '{"config": {}, "sha256": "x"}']
)
def bad_config_record(text, folder):
    (folder / "config.json").write_text(text)
    journal.read_config_record(folder)


# Model folders


def read_folder(folder):
    path = str(folder / "model")
    model = pretrained.read_config(path)
    load_tokenizer(path)
    return pretrained.read_params(path, model, "float32")


@cases(
    "config.json of a model",
    [
        {"model_type": "t5"},
        {"model_type": None},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "two"},
        {"hidden_size": -1},
        {"hidden_size": 33},
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"num_key_value_heads": 3},
        {"vocab_size": 1},
        {"intermediate_size": 2.5},
        {"rms_norm_eps": "nan"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": -1}},
        {"hidden_act": "unheard"},
        {"rope_scaling": {"rope_type": "unheard", "factor": 2}},
    ],
)
def bad_model_config(change, folder):
    file = folder / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    read_folder(folder)


@cases(
    "file of a model",
    [
        ("config.json", None),
        ("config.json", b"[]"),
        ("config.json", b"{"),
        ("config.json", b"\xff"),
        ("model.safetensors", None),
        ("model.safetensors", b""),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0[]      "),
        ("model.safetensors", b"\xff" * 100),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b"{"),
        ("generation_config.json", b"5"),
    ],
)
def bad_model_file(spoiled, folder):
    name, content = spoiled
    path = folder / "model" / name
    path.unlink() if content is None else path.write_bytes(content)
    read_folder(folder)


# Prompts


@cases("prompt", ["Ben buys a yacht?", "\0", "Ben " * 100, "数学", "Ben pays 999 for two of 6 3 2 11 9?", "<eos>x"])
def bad_prompt(text, folder):
    sample.read_prompt(tasks.make_task("shop"), text)


ASKED = dict(
    prompt="1 + 1?", answer="", attempts=1, tokens=4, template="", dtype="", seed=0, temperature=0.6, top_p=1.0
)


@cases(
    "question to a model",
    [
        {"prompt": ""},
        {"attempts": 0},
        {"attempts": -1},
        {"tokens": 0},
        {"tokens": 10**12},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_p": float("nan")},
        {"rows": -1},
        {"template": "unheard"},
        {"dtype": "int32"},
        {"model": "/nowhere"},
    ],
)
def bad_question(change, folder):
    sample.run_model(**({"model": str(folder / "model")} | ASKED | change))


# Layouts, rewards and arguments of configs


def layout_of(sizes=(1, 1, 2, 3, 1), **rules):
    return sharding.make_layout(AbstractMesh(sizes, sharding.MESH_AXES), rules)


@cases(
    "mesh",
    [{"data": 3}, {"data": 2}, {"fsdp": 0}, {"tensor": -2}, {"expert": 9}, {"context": 2}, {"data": -1, "fsdp": 2}],
)
def bad_mesh(sizes, folder):
    config = shop.get_config()
    config.mesh.update(sizes)
    resolve(config)


@cases(
    "layout",
    [{"row": "data"}, {"rows": "dta"}, {"heads": "tensor", "embed": "tensor"}, {"ff": "expert"}, {"heads": "expert"}],
)
def bad_layout(rules, folder):
    sharding.weight_shardings(transformer.Config(vocab_size=16, layout=layout_of(**rules)))


@cases(
    "reward",
    ["", "correct +", "x", "correct*correct", "inf*correct", "format(tags=x)", "repetition(n=0)", "a.py:f", "1"],
)
def bad_reward(text, folder):
    rewards.parse_reward(text)


@cases(
    "config", ["", "shopp", "shop:x", "shop:prices", "shop:prices=2.5", "shop:prices=", "cups:swaps=-1", "nowhere.py"]
)
def bad_config(name, folder):
    resolve(config_files.load_config(name))
