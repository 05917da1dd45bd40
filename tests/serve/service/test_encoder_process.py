"""New items as text and picture: another process makes their features."""

from __future__ import annotations

import base64
import io
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import WIDTH, serving

from modalign_serve.artifact.artifact import Artifact
from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.command.commands import ENCODER

ITEMS = "/v1/models/shop/items"
# Two numbers for a text, three for a picture; a text of "die" ends the process.
STUB = """
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("text") == "die":
        os._exit(1)
    rows = {"text": [len(asked.get("text", "")), 1.0], "image": [1.0, 2.0, 3.0]}
    if asked.get("text") == "bad":
        told = {"expected": "a", "got": "b", "fix": "c", "input": True}
        print(json.dumps({"error": told}), flush=True)
    else:
        print(json.dumps({"features": {n: rows[n] for n in asked["wanted"]}}), flush=True)
"""


def shop(folder: Path, encoders: dict[str, tuple[str, int]]) -> Path:
    """An artifact whose adapter reads these modalities: encoder and width by name."""
    widths = {name: width for name, (_, width) in encoders.items()}
    total = sum(widths.values()) + len(widths)
    rng = np.random.default_rng(3)
    matrices = {
        "linear": rng.normal(size=(total, WIDTH)).astype(np.float32),
        "bias": np.zeros(WIDTH, np.float32),
        "hidden": np.zeros((total, 0), np.float32),
        "hidden_bias": np.zeros(0, np.float32),
        "out": np.zeros((0, WIDTH), np.float32),
        **{f"centre.{name}": np.zeros(width, np.float32) for name, width in widths.items()},
    }
    known = {
        name: {"width": width, "provenance": {"encoder": encoder, "kind": name}}
        for name, (encoder, width) in encoders.items()
    }
    artifact: Artifact = small_artifact(20, 30, WIDTH)
    manifest = replace(artifact.manifest, adapter={"modalities": list(widths)}, modalities=known)
    write_artifact(folder, replace(artifact, manifest=manifest, adapter=matrices))
    return folder


def picture() -> str:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(held, "png")
    return base64.b64encode(held.getvalue()).decode()


def test_the_process_is_asked_for_what_the_adapter_reads(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop", {"text": ("minilm", 2), "image": ("efficientnet-lite0", 3)})
    command = (sys.executable, "-c", STUB)
    with serving({"shop": folder}, tmp_path / "f.sqlite", encoder=command) as asked:
        both = asked.post(ITEMS, {"item_id": "n", "text": "A bag", "image": picture()})
        assert both.json()["modalities"] == ["image", "text"]
        ranker = asked.service.models.get("shop").ranker
        rows = {"text": np.array([[5.0, 1.0]]), "image": np.array([[1.0, 2.0, 3.0]])}
        row = ranker.catalogue.rows(["n"])
        np.testing.assert_allclose(ranker.catalogue.vectors(row), ranker.adapt(rows), rtol=1e-5)
        one = asked.post(ITEMS, {"item_id": "m", "text": "A bag"})
        assert one.json()["modalities"] == ["text"]
        sent = {"item_id": "s", "text": "A bag", "features": {"image": [9.0, 0.0, 0.0]}}
        assert asked.post(ITEMS, sent).json()["modalities"] == ["image", "text"]
        refused = asked.post(ITEMS, {"item_id": "b", "text": "bad"})
        assert (refused.status_code, refused.json()["error"]["got"]) == (422, "b")
        assert asked.post(ITEMS, {"item_id": "d", "text": "die"}).status_code == 503
        assert asked.post(ITEMS, {"item_id": "d", "text": "lives"}).status_code == 200
        properties = asked.get("/openapi.json").json()["components"]["schemas"]["NewItem"]
        assert {"text", "image"} <= set(properties["properties"])


def test_a_model_that_reads_no_pictures(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop", {"text": ("minilm", 2)})
    command = (sys.executable, "-c", STUB)
    with serving({"shop": folder}, tmp_path / "f.sqlite", encoder=command) as asked:
        answer = asked.post(ITEMS, {"item_id": "n", "image": picture()})
        assert answer.status_code == 409
        assert "image" in answer.json()["error"]["expected"]


def test_a_process_that_is_killed_is_started_again(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop", {"text": ("minilm", 2)})
    command = (sys.executable, "-c", STUB)
    with serving({"shop": folder}, tmp_path / "f.sqlite", encoder=command) as asked:
        assert asked.post(ITEMS, {"item_id": "n", "text": "one"}).status_code == 200
        assert asked.service.encoder is not None
        process = asked.service.encoder._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.1)
        statuses = {asked.post(ITEMS, {"item_id": "n", "text": "two"}).status_code for _ in "ab"}
        assert 200 in statuses
        assert statuses <= {200, 503}


@pytest.mark.slow
def test_the_encoder_of_pictures_that_comes_along(tmp_path: Path) -> None:
    from modalign.encoding.encoders.encoder import make_encoder

    folder = shop(tmp_path / "shop", {"image": ("efficientnet-lite0", 1280)})
    with serving({"shop": folder}, tmp_path / "f.sqlite", encoder=ENCODER) as asked:
        answer = asked.post(ITEMS, {"item_id": "n", "image": picture()})
        assert answer.status_code == 200, answer.text
        ranker = asked.service.models.get("shop").ranker
        image = make_encoder("efficientnet-lite0", "image")
        red = image.read(Image.open(io.BytesIO(base64.b64decode(picture()))))
        expected = ranker.adapt({"image": image.encode([red])})
        found = ranker.catalogue.vectors(ranker.catalogue.rows(["n"]))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
        for sent, told in (("bm8gcGljdHVyZQ==", "not a picture"), ("no base64!", "base64")):
            broken = asked.post(ITEMS, {"item_id": "b", "image": sent})
            assert broken.status_code == 422
            assert told in broken.text
        strange = asked.post(ITEMS, {"item_id": "b", "image": picture(), "text": "A bag"})
        assert strange.status_code == 409
