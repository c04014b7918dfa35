"""Against transformers, by fixtures: every field of every family's config.json, in today's form and in the hub's older one.

A field that is read nowhere fails here: each is varied alone, and the logits have to follow torch's.
"""

import logging

import numpy as np
import pytest
from parity import cases, expected, noise
from parity.expected import FEW, LAST, LEAST
from parity.quickly import jit

from rljax import pretrained, transformer
from rljax.errors import UserError
from rljax.pretrained.config_fields import Fields

compiled = jit(transformer.forward)
each_family = pytest.mark.parametrize("family", cases.FAMILIES)


@pytest.mark.exhaustive  # test_parity compares the usual fields, test_transformer_config shows that each matters
@pytest.mark.parametrize("family", cases.FAMILIES)
def test_every_field_changes_the_logits_as_in_torch(family, tmp_path, caplog):
    """Compiled only where shapes are new: the other variants of a case are the same operations, known by then."""
    caplog.set_level(logging.ERROR)
    wrong = []
    for name in [n for n, case in cases.CASES.items() if case["family"] == family and n not in cases.MAIN]:
        try:
            config, params, _ = pretrained.load(expected.folder(name, tmp_path / name), dtype="float32")
        except UserError as e:
            wrong.append(f"{name}: refused, {e}")
            continue
        forward = compiled if expected.fixture(name)["shapes"] else transformer.forward
        logits = forward(params, config, noise.tokens(1, FEW, config.vocab_size))[:, -LAST:]
        if (worst := np.abs(logits - expected.logits(name)).max()) > 1e-4:
            wrong.append(f"{name}: {worst:.1e} away")
        base = cases.CASES[name]["base"]
        if base and config.vocab_size == cases.CASES[base]["config"]["vocab_size"]:
            effect = np.abs(logits[0] - expected.logits(base)[0, FEW - LAST : FEW]).max()
            if effect < LEAST:
                wrong.append(f"{name}: changes the logits by {effect:.1e} only")
    assert not wrong, "\n".join(wrong)


def leaves(config, before=""):
    """The fields of a config.json, those within its dicts by paths."""
    for key, value in config.items():
        yield from leaves(value, f"{before}{key}.") if isinstance(value, dict) else [before + key]


@each_family
def test_no_field_that_transformers_writes_is_forgotten_here(family):
    written = [case.get("written", {}) for case in expected.family_fixtures(family).values()]
    fields = {leaf for config in written for leaf in leaves(config)}
    varied = {name.split(":")[1] for name in cases.CASES if name.startswith(f"{family}/") and ":" in name}
    refused = {key for name, change in cases.REFUSED if name.startswith(f"{family}/") for key in change}
    ignored = {key.removeprefix(f"{family}.") for key in cases.IGNORED}
    assert not {cases.WRITTEN_AS.get(f, f) for f in fields} - varied - refused - ignored - {"model_type"}
    own = {key.split(".", 1)[1] for key in cases.IGNORED if key.startswith(f"{family}.")}
    assert own <= fields and not own & varied


@each_family
def test_the_same_model_is_read_from_what_transformers_writes_and_from_the_hubs_older_form(family, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    wrong = []
    for name in [*cases.main_cases(family), f"{family}/defaults"]:
        own = cases.CASES[name]["config"]
        forms = {"own": own, "written": expected.fixture(name)["written"], "legacy": cases.legacy(own)}
        read = {}
        for form, config in forms.items():
            read[form] = pretrained.load(expected.folder(name, tmp_path / name / form, config), dtype="float32")[0]
        wrong += [f"{name}, {form}:\n{config}\n{read['own']}" for form, config in read.items() if config != read["own"]]
    assert not wrong, "\n".join(wrong)


@each_family
def test_no_field_is_named_as_unread_in_any_form_of_a_good_file(family):
    """But for one: a linear scaling does not read the length before it, which the variant of a yarn file still has."""
    unread = set()
    for name in [name for name, case in cases.CASES.items() if case["family"] == family]:
        own, written = cases.CASES[name]["config"], expected.fixture(name).get("written")
        for config in (own, cases.legacy(own), written or own):
            fields = Fields(dict(config), name)
            pretrained.FAMILIES[config["model_type"]].config_from_hf(fields)
            unread |= {(name, field) for field in fields.unread_names()}
    spare = {field for name, field in unread if not name.endswith("full_attention.rope_type")}
    assert not spare, unread
    assert all(field.endswith(".original_max_position_embeddings") for _, field in unread)


@pytest.mark.parametrize("name, change", cases.REFUSED, ids=str)
def test_what_is_not_computed_here_is_refused(name, change, tmp_path):
    config = cases.changed(cases.CASES[name]["config"], change)
    with pytest.raises(UserError):
        pretrained.load(expected.folder(name, tmp_path, config), dtype="float32")
