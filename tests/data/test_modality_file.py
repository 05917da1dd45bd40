"""Features in a file: what is written is what is read, with and without zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from modalign.core.modality import Modality
from modalign.data.modality_file import drop_modalities, read_modality, write_modality
from modalign.encoding.encoders.precomputed import read_precomputed
from modalign.errors import DataError
from modalign.testing.toy import toy_dataset

N_ITEMS = 40


def words(share: float, width: int = 50) -> Modality:
    """Features of which about so many are not zero, some rows and columns without any."""
    rng = np.random.default_rng(1)
    features = rng.standard_normal((N_ITEMS, width)).astype(np.float32)
    features[rng.random(features.shape) >= share] = 0
    features[[0, 7, N_ITEMS - 1]] = 0
    features[:, [0, width - 1]] = 0
    features[3, 4] = -0.0
    return Modality("words", features, rng.random(N_ITEMS) < 0.9, provenance={"encoder": "words"})


def written(folder: Path, modality: Modality) -> Path:
    folder.mkdir(exist_ok=True)
    return write_modality(folder, modality, toy_dataset().vocabulary(modality.entity))


def read(path: Path) -> Modality:
    data = toy_dataset()
    return read_modality(path, data.items, data.users)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_what_is_written_is_read_bit_by_bit(tmp_path, share):
    modality = words(share)
    found = read(written(tmp_path, modality))
    assert found.features.dtype == np.float32
    np.testing.assert_array_equal(
        found.features.view(np.int32), modality.features.view(np.int32), strict=True
    )
    np.testing.assert_array_equal(found.present, modality.present, strict=True)
    assert found.fingerprint == modality.fingerprint
    assert found.provenance == modality.provenance


def test_zeros_take_no_room(tmp_path):
    few, many = written(tmp_path / "few", words(0.02, 8000)), written(tmp_path / "many", words(1.0))
    assert few.stat().st_size < 0.05 * 4 * N_ITEMS * 8000
    assert set(load_file(few)) == {"values", "columns", "starts", "width", "present"}
    assert set(load_file(many)) == {"features", "present"}


@pytest.mark.parametrize("part", ["columns", "values", "starts"])
def test_a_damaged_file_is_told(tmp_path, part):
    path = written(tmp_path, words(0.05))
    with safe_open(path, framework="numpy") as file:
        meta = file.metadata()
    parts = load_file(path)
    parts[part] = parts[part][:-1] if part != "columns" else parts[part] + 50
    save_file(parts, path, metadata=meta)
    with pytest.raises(DataError, match="encode this modality again"):
        read(path)


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_a_modality_s_file_can_be_given_to_another_data_set(tmp_path, share):
    modality, items = words(share), toy_dataset().items
    path, ids = written(tmp_path, modality), tmp_path / "ids.txt"
    ids.write_text("\n".join(items.series))
    found = read_precomputed(path, "theirs", items, ids=ids)
    np.testing.assert_array_equal(found.features, modality.features, strict=True)


def test_a_file_of_other_things_is_told(tmp_path):
    path = written(tmp_path, words(1.0))
    with safe_open(path, framework="numpy") as file:
        meta = file.metadata()
    save_file({"present": load_file(path)["present"]}, path, metadata=meta)
    with pytest.raises(DataError, match="it holds no features"):
        read(path)


def test_modalities_are_dropped_together_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    toy_dataset().save(folder)
    before = {path.name: path.read_bytes() for path in (folder / "modalities").iterdir()}
    assert len(before) == 2
    rename = Path.replace

    def second_fails(path: Path, target: Path) -> Path:
        if path.name == "text.safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", second_fails)
    with pytest.raises(PermissionError):
        drop_modalities(folder, ["image", "text"])
    assert {path.name: path.read_bytes() for path in (folder / "modalities").iterdir()} == before
    monkeypatch.undo()
    assert drop_modalities(folder, ["image", "text", "image"]) == []
    assert not list((folder / "modalities").iterdir())
