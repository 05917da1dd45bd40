"""Vectors in a folder: what a server loads, and what another model can be taught from.

manifest.json       schema, model, data fingerprint, hashes of the ids, sizes, checksums
users.npy           final vectors of users, float32 (n_users, d)
items.npy           final vectors of items, float32 (n_items, d)
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modalign.data.files import write_folder_aside
from modalign.data.view import TrainView
from modalign.distillation.source import VectorSource
from modalign.errors import RunError
from modalign.interfaces import Factors, Recommender

SCHEMA = 1


def write_tables(recommender: Recommender, view: TrainView, folder: Path, name: str) -> None:
    """Write the final vectors of a factorised model.

    Raises:
        RunError: the model only scores.
    """
    scorer = recommender.scorer()
    if not isinstance(scorer, Factors):
        raise RunError(
            "a model with vectors of users and items", f"{name}, which only scores", "distil it"
        )
    arrays = {"users": scorer.users, "items": scorer.items}
    with write_folder_aside(folder) as aside:
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "model": name,
            "data": view.fingerprint,
            "user_ids": view.user_ids,
            "item_ids": view.item_ids,
            "sha256": {},
        }
        for part, tensor in arrays.items():
            np.save(aside / f"{part}.npy", tensor.detach().float().cpu().numpy())
            manifest["sha256"][part] = _checksum(aside / f"{part}.npy")
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def read_tables(folder: Path, view: TrainView) -> VectorSource:
    """The vectors as a teacher for the same users and items.

    Raises:
        RunError: damaged, of another schema, or of other users or items.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        arrays = {part: np.load(folder / f"{part}.npy") for part in ("users", "items")}
        sums = {part: manifest["sha256"][part] for part in arrays}
        facts = {key: manifest[key] for key in ("schema", "model", "user_ids", "item_ids")}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"a manifest.json, users.npy and items.npy in {folder}",
            " ".join(f"{type(error).__name__}: {error}".split()),
            "write the vectors again",
        ) from error
    if facts["schema"] != SCHEMA:
        raise RunError(f"schema {SCHEMA}", f"{facts['schema']} in {folder}", "write it again")
    for part, wanted in sums.items():
        found = _checksum(folder / f"{part}.npy")
        if found != wanted:
            raise RunError(
                f"{part}.npy with checksum {wanted[:12]}",
                f"{found[:12]} in {folder}: the file is damaged",
                "write the vectors again",
            )
    for kind, mine in (("user", view.user_ids), ("item", view.item_ids)):
        if facts[f"{kind}_ids"] != mine:
            raise RunError(
                f"vectors of the {kind}s of these data (ids {mine or 'unknown'})",
                f"those of others (ids {facts[f'{kind}_ids']}) in {folder}",
                "distil on the data the teacher was trained on",
            )
    users, items = (torch.from_numpy(arrays[part]) for part in ("users", "items"))
    return VectorSource(users, items, str(facts["model"]))


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
