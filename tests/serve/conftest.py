"""Small artifacts on disk, and services of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from served import WIDTH, Asked, serving, with_adapter

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.strings import Strings
from modalign_serve.artifact.write import write_artifact


@pytest.fixture(scope="session")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the artifacts shop (with pictures of i0 to i4) and shop-2."""
    root = tmp_path_factory.mktemp("artifacts")
    picture = BytesIO()
    Image.new("RGB", (4, 4), "red").save(picture, "png")
    names = [f"images/{row}.png" if row < 5 else None for row in range(40)]
    for name, seed in (("shop", 1), ("shop-2", 2)):
        artifact = with_adapter(small_artifact(30, 40, WIDTH, seed=seed, mean_seen=4))
        artifact = replace(artifact, columns={**artifact.columns, "image": Strings.of(names)})
        files = {one: picture.getvalue() for one in names if one is not None}
        write_artifact(root / name, artifact, files)
    return root


@pytest.fixture
def asked(shops: Path, tmp_path: Path) -> Iterator[Asked]:
    """A service of shop with a store of its own."""
    with serving({"shop": shops / "shop"}, tmp_path / "feedback.sqlite") as found:
        yield found


@pytest.fixture(scope="module")
def common(shops: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A service that the tests of a module share."""
    store = tmp_path_factory.mktemp("store") / "feedback.sqlite"
    with serving({"shop": shops / "shop"}, store) as found:
        yield found
