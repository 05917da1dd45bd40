from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modalign_serve.artifact.artifact import Artifact, Category
from modalign_serve.artifact.manifest import read_manifest
from modalign_serve.artifact.read import read_artifact
from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.strings import Strings
from modalign_serve.artifact.write import quantised, restored, write_artifact
from modalign_serve.errors import ArtifactError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "artifact", small_artifact())


def plain(artifact: Artifact) -> dict[str, object]:
    """Everything that is in it, as numbers and lists."""
    columns = {
        name: list(one)
        if isinstance(one, Strings)
        else (one.codes.tolist(), one.names)
        if isinstance(one, Category)
        else np.nan_to_num(one).tolist()
        for name, one in artifact.columns.items()
    }
    groups = {
        group: {name: array.tolist() for name, array in getattr(artifact, group).items()}
        for group in ("features", "bases", "fold_in")
    }
    assert artifact.users is not None
    assert artifact.items is not None
    return {
        "users": artifact.users.tolist(),
        "items": artifact.items.tolist(),
        "user_ids": list(artifact.user_ids),
        "rows": artifact.item_ids.find(list(artifact.item_ids)).tolist(),
        "seen": [artifact.seen.row(row).tolist() for row in range(artifact.n_users)],
        "counts": artifact.counts.tolist(),
        "columns": columns,
        **groups,
    }


@pytest.mark.parametrize("verify", ["auto", "full", "quick"])
def test_what_is_written_comes_back(folder: Path, verify: str) -> None:
    found = read_artifact(folder, verify)  # type: ignore[arg-type]
    assert plain(found) == plain(small_artifact())
    assert found.verified == ("quick" if verify == "quick" else "full")
    assert found.manifest.fold_in == small_artifact().manifest.fold_in


def test_a_large_artifact_is_verified_quickly_unless_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modalign_serve.artifact.read.FULL_UP_TO", 10)
    assert read_artifact(folder).verified == "quick"
    assert read_artifact(folder, "full").verified == "full"


def test_vectors_are_mapped_not_read(folder: Path) -> None:
    items = read_artifact(folder).items
    assert items is not None
    assert isinstance(items.base, np.memmap)


def test_empty_parts_come_back(tmp_path: Path) -> None:
    empty = small_artifact(1, 2)  # the only user has seen nothing
    found = read_artifact(write_artifact(tmp_path / "a", empty))
    assert found.seen.row(0).tolist() == []


def test_every_damage_is_named(folder: Path) -> None:
    for name in [*read_manifest(folder).files]:
        path = folder / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(ArtifactError, match="changed content") as changed:
            read_artifact(folder)
        path.write_bytes(before[:-1])
        with pytest.raises(ArtifactError, match="bytes instead of") as cut:
            read_artifact(folder, "quick")
        path.unlink()
        with pytest.raises(ArtifactError, match="no such file") as gone:
            read_artifact(folder)
        for caught in (changed, cut, gone):
            assert str(path) in str(caught.value)
        path.write_bytes(before)
    read_artifact(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": 99}, "schema 99"),
        ({"schema": "one"}, "ValueError"),
        ({"kind": "magic"}, "kind is 'magic'"),
        ({"strange": 1}, "strange"),
        ({"n_items": 9}, r"shape"),
        ({"files": {"../outside": {"size": 1, "sha256": ""}}}, "outside the artifact"),
        ({"files": {"/etc/passwd": {"size": 1, "sha256": ""}}}, "outside the artifact"),
        ({"files": None}, "complete"),
    ],
)
def test_a_bad_manifest_is_told(folder: Path, change: dict[str, object], told: str) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match=told):
        read_artifact(folder)


def test_what_is_no_artifact_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text("{")
    for name, told in [
        (".", "without one"),
        ("none", "does not exist"),
        ("file", "is a file"),
        ("torn", "readable"),
    ]:
        with pytest.raises(ArtifactError, match=told):
            read_artifact(tmp_path / name)


def test_a_file_of_objects_is_refused(folder: Path) -> None:
    from modalign_serve.artifact.write import described

    path = folder / "counts.npy"
    np.save(path, np.array([{}] * 8), allow_pickle=True)
    text = json.loads((folder / "manifest.json").read_text())
    told = described(path)
    text["files"]["counts.npy"] = {"size": told.size, "sha256": told.sha256}
    (folder / "manifest.json").write_text(json.dumps(text))
    with pytest.raises(ArtifactError, match=r"counts\.npy"):
        read_artifact(folder)


def test_an_artifact_is_replaced_only_when_asked(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="--overwrite"):
        write_artifact(folder, small_artifact())
    write_artifact(folder, small_artifact(3), overwrite=True)
    assert read_artifact(folder).n_users == 3
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").touch()
    with pytest.raises(ArtifactError, match="something else"):
        write_artifact(other, small_artifact(), overwrite=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["artifact", "other"]


def test_a_failed_write_leaves_the_old_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_artifact(folder, small_artifact(3), {"x": tmp_path / "none"}, overwrite=True)
    assert read_artifact(folder).n_users == 6
    assert [one.name for one in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_narrow_vectors_come_back_as_near_as_they_can(tmp_path: Path, dtype: str) -> None:
    given = small_artifact()
    narrow = replace(given, manifest=replace(given.manifest, dtype=dtype))
    found = read_artifact(write_artifact(tmp_path / "a", narrow))
    assert given.items is not None
    assert found.items is not None
    assert found.items.dtype == np.float32
    step = np.abs(given.items).max(axis=1, keepdims=True)
    gone = np.abs(found.items - given.items) / step
    assert 0 < gone.max() <= (0.5 / 127 + 1e-6 if dtype == "int8" else 2.0**-11)


def test_a_row_of_zeros_survives_int8() -> None:
    zeros = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(restored(quantised(zeros, "int8")), zeros)


def test_pictures_outside_the_folder_are_not_given(tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    names = ["images/a.png", "images/../../secret.png", "", "images/none.png", "manifest.json"]
    given = small_artifact(n_items=5)
    given = replace(given, columns={"image": Strings.of(names)})
    found = read_artifact(write_artifact(tmp_path / "a", given, {"images/a.png": b"picture"}))
    assert [found.picture_name(row) for row in range(5)] == ["images/a.png", *[None] * 4]
    assert found.pictures is not None
    assert found.pictures.read("images/a.png") == b"picture"


def test_many_pictures_are_one_file_that_is_read_when_one_is_asked_for(tmp_path: Path) -> None:
    n = 5000
    names = [f"images/{row}.png" for row in range(n)]
    given = small_artifact(n_items=n)
    given = replace(given, columns={"image": Strings.of(names)})
    files: dict[str, bytes | Path] = {name: name.encode() * 3 for name in names}
    (tmp_path / "one").write_bytes(b"from a file")
    files[names[7]] = tmp_path / "one"
    folder = write_artifact(tmp_path / "a", given, files)
    assert len(list(folder.rglob("*"))) < 40
    found = read_artifact(folder, "quick")
    assert found.pictures is not None
    assert found.pictures._index is None
    assert found.pictures.read("images/7.png") == b"from a file"
    assert found.pictures.read("images/4999.png") == b"images/4999.png" * 3
    assert len(found.pictures) == n
    with (folder / "pictures.bin").open("r+b") as file:
        file.seek(9)
        file.write(b"!")
    with pytest.raises(ArtifactError, match=r"pictures\.bin"):
        read_artifact(folder, "full")
