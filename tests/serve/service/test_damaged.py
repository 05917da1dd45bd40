"""Artifacts that are damaged, and signed as if they were not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from served import serving

from modalign_serve.artifact.write import described
from modalign_serve.errors import ArtifactError
from modalign_serve.ranker.rules import Rules
from modalign_serve.service.served import Served


def damaged(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The array, changed as a faulty export might change it."""
    changed = array.copy()
    way = rng.integers(7)
    if way == 0:
        return changed[: len(changed) // 2] if changed.ndim else changed
    if way == 1:
        return changed.reshape(-1)
    if way == 2:
        return np.zeros((0,), array.dtype)
    if way == 3 and array.dtype.kind in "iu" and array.size:
        info = np.iinfo(array.dtype)
        changed.flat[rng.integers(array.size)] = rng.choice([info.max, info.min])
        return changed
    if way == 4:
        return changed[::-1].copy() if changed.ndim else changed
    if way == 5:
        return np.array(["text"] * max(1, len(array))) if array.ndim else changed
    return changed.astype(np.complex64 if array.dtype.kind == "f" else np.float64)


def used(served: Served) -> None:
    """Everything that callers may ask."""
    ranker = served.ranker
    catalogue = ranker.catalogue
    users = list(ranker.artifact.user_ids)
    ranker.recommend(users, 40, Rules(diversity=0.5, at_most_per={"category": 2}))
    ranker.recommend(users, 5, Rules(where={"category": "a", "price": {"max": 9}}))
    items = catalogue.ids(np.arange(len(catalogue)))
    ranker.similar_items(items, 5)
    for row in range(len(catalogue)):
        json.dumps(catalogue.record(row))
    ranker.update({"u1": items[:3], "new": items[3:5]})
    ranker.recommend(["new", "u1"], 5)


@pytest.mark.parametrize("seed", range(99))
def test_a_damage_is_found_when_it_is_opened(shops: Path, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path / "shop"
    shutil.copytree(shops / "shop", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    names = sorted(name for name in manifest["files"] if name.endswith(".npy"))
    name = names[seed % len(names)]
    if rng.random() < 0.2:
        content = bytearray((folder / name).read_bytes())
        for at in rng.integers(min(len(content), 128), size=3):
            content[at] ^= int(rng.integers(1, 256))
        (folder / name).write_bytes(bytes(content))
    else:
        np.save(folder / name, damaged(np.load(folder / name), rng))
    file = described(folder / name)
    manifest["files"][name] = {"size": file.size, "sha256": file.sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refusal = None
    try:
        served = Served.open("shop", folder)
    except ArtifactError as error:
        refusal = error
    if refusal is None:
        used(served)
    else:
        assert all((refusal.expected, refusal.got, refusal.fix))


def test_the_old_artifact_stays_and_the_failure_is_counted(shops: Path, tmp_path: Path) -> None:
    from modalign_serve.service.keys import new_key

    for name in ("shop", "next"):
        shutil.copytree(shops / "shop", tmp_path / name)
    folder = tmp_path / "next"
    manifest = json.loads((folder / "manifest.json").read_text())
    np.save(folder / "fold_in" / "map.npy", np.zeros((3, 2), np.float32))
    file = described(folder / "fold_in" / "map.npy")
    manifest["files"]["fold_in/map.npy"] = {"size": file.size, "sha256": file.sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    admin = {"Authorization": f"Bearer {new_key(tmp_path / 'keys', 'boss', 'admin')}"}
    settings = {"keys": tmp_path / "keys"}
    with serving({"shop": tmp_path / "shop"}, tmp_path / "f.sqlite", **settings) as asked:
        sent = {"model": "shop", "artifact": "next"}
        answer = asked.post("/v1/admin/swap", sent, headers=admin)
        assert answer.status_code == 422, answer.text
        assert set(answer.json()["error"]) >= {"expected", "got", "fix"}
        listed = asked.post("/v1/models/shop/recommend", {"user_id": "u1"}, headers=admin)
        assert listed.status_code == 200
        metrics = asked.get("/metrics", headers=admin).text
        assert 'modalign_swaps_total{model="shop",result="refused"} 1.0' in metrics
