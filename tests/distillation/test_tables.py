"""Vectors in a folder: there and back, and refused where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from modalign import registry, seeds
from modalign.distillation.tables import read_tables, write_tables
from modalign.errors import RunError
from modalign.testing.toy import toy_dataset

VIEW = toy_dataset().view()


def model(name: str = "mlprec"):
    spec = registry.get(name)
    with seeds.torch_seed(1):
        made = spec.cls(spec.config(), VIEW)
    made.solve(VIEW)
    return made


@pytest.fixture
def folder(tmp_path):
    write_tables(model(), VIEW, tmp_path / "student", "mlprec")
    return tmp_path / "student"


def test_loaded_vectors_score_as_the_live_model(folder):
    made = model()
    source = read_tables(folder, VIEW)
    users = torch.arange(VIEW.n_users)
    live = made.tables()
    assert_close(source.score(users), (live[0] @ live[1].T).detach(), rtol=1e-6, atol=1e-6)
    assert source.name == "mlprec"


def test_arrays_are_plain_and_need_no_torch(folder):
    items = np.load(folder / "items.npy", mmap_mode="r")
    assert items.dtype == np.float32
    assert items.shape == (VIEW.n_items, 64)


def test_a_model_without_vectors_is_refused(tmp_path):
    with pytest.raises(RunError, match="only scores"):
        write_tables(model("ease"), VIEW, tmp_path / "ease", "ease")
    assert not (tmp_path / "ease").exists()


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: (f / "users.npy").unlink(), "users.npy"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json"),
        (lambda f: np.save(f / "items.npy", np.zeros((VIEW.n_items, 64), "f4")), "checksum"),
        (
            lambda f: (f / "manifest.json").write_text(
                json.dumps(json.loads((f / "manifest.json").read_text()) | {"schema": 9})
            ),
            "schema 1",
        ),
    ],
)
def test_damage_is_told(folder, break_it, words):
    break_it(folder)
    with pytest.raises(RunError, match=words):
        read_tables(folder, VIEW)


@pytest.mark.parametrize("kind", ["user", "item"])
def test_vectors_of_others_are_refused(folder, kind):
    other = replace(VIEW, **{f"{kind}_ids": "other"})
    with pytest.raises(RunError, match=f"of the {kind}s of these data"):
        read_tables(folder, other)
