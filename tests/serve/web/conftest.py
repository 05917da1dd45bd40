"""Services with a page: a shop with pictures, segments and a content adapter, and another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from looking import ENCODER, NASTY
from served import WIDTH, Asked, serving

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.strings import Strings
from modalign_serve.artifact.write import write_artifact

N_ITEMS = 40
IMAGE, TEXT = 3, 2
"""Widths of the features of pictures and texts."""


def _shop(folder: Path, seed: int) -> Path:
    """An artifact with everything that the page shows."""
    rng = np.random.default_rng(seed)
    made = small_artifact(30, N_ITEMS, WIDTH, seed=seed, mean_seen=4)
    titles = [f"Item {row}" for row in range(N_ITEMS)]
    titles[3], titles[4] = NASTY, "Überwurf café"
    names = [f"images/{row}.png" if row % 4 else None for row in range(N_ITEMS)]
    files = {}
    for row in (row for row in range(N_ITEMS) if row % 4):
        held = BytesIO()
        Image.new("RGB", (8, 8), (6 * row, 90, 200)).save(held, "png")
        files[f"images/{row}.png"] = held.getvalue()
    features = {}
    for name in ("image", "text"):
        rows = rng.normal(size=(N_ITEMS, 2)).astype(np.float32)
        features[name] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    features["text"][7] = 0.0
    total = IMAGE + TEXT + 2
    adapter = {
        "linear": rng.normal(size=(total, WIDTH)).astype(np.float32),
        "bias": np.zeros(WIDTH, np.float32),
        "hidden": np.zeros((total, 0), np.float32),
        "hidden_bias": np.zeros(0, np.float32),
        "out": np.zeros((0, WIDTH), np.float32),
        "centre.image": np.zeros(IMAGE, np.float32),
        "centre.text": np.zeros(TEXT, np.float32),
    }
    manifest = replace(
        made.manifest,
        adapter={"modalities": ["image", "text"], "recall@20": 0.5},
        modalities={
            "image": {"width": IMAGE, "provenance": {"encoder": "stub", "kind": "image"}},
            "text": {"width": TEXT, "provenance": {"encoder": "stub", "kind": "text"}},
        },
        segments=(("image", 0, 3), ("text", 3, 6), ("fusion", 6, WIDTH)),
        metrics={"valid": {"recall@20": 0.21}, "test": {"recall@20": 0.1234, "ndcg@20": 0.07}},
        columns={**made.manifest.columns, "image": "text"},
        synthetic=True,
        dataset="drawn",
    )
    columns = {**made.columns, "title": Strings.of(titles), "image": Strings.of(names)}
    artifact = replace(
        made,
        manifest=manifest,
        columns=columns,
        features=features,
        bases={"image": np.eye(IMAGE, 2, dtype=np.float32), "text": np.eye(TEXT, dtype=np.float32)},
        adapter=adapter,
    )
    return write_artifact(folder, artifact, files)


@pytest.fixture(scope="session")
def web_shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the artifacts shop and other."""
    root = tmp_path_factory.mktemp("web")
    _shop(root / "shop", 1)
    _shop(root / "other", 2)
    return root


@pytest.fixture(scope="module")
def web(web_shops: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A service of both that tests only look at."""
    store = tmp_path_factory.mktemp("store") / "f.sqlite"
    both = {"shop": web_shops / "shop", "other": web_shops / "other"}
    with serving(both, store) as found:
        yield found


@pytest.fixture
def adding(web_shops: Path, tmp_path: Path) -> Iterator[Asked]:
    """A service of shop alone with an encoder, for tests that add to it."""
    settings = {"encoder": (sys.executable, "-c", ENCODER), "max_body": 20_000}
    with serving({"shop": web_shops / "shop"}, tmp_path / "f.sqlite", **settings) as found:
        yield found
