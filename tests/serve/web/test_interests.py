"""Interests on the page, from an encoder written by hand, of which everything is known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from looking import look
from onnx import TensorProto, helper, numpy_helper
from served import serving

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.ranker.foldin import interests_of
from modalign_serve.ranker.ranker import Ranker

N_ITEMS, K = 30, 3
GIVEN = np.random.default_rng(4).random((N_ITEMS, N_ITEMS, K)).astype(np.float32)
"""What an item of a history adds to each item by each interest."""


def encoder(outputs: int) -> bytes:
    """`cells = sum of GIVEN over the history`, `scores = log of their sum`."""
    nodes = [
        helper.make_node("Gather", ["given", "items"], ["all"], axis=0),
        helper.make_node("ReduceSum", ["all", "first"], ["cells"], keepdims=0),
        helper.make_node("ReduceSum", ["cells", "second"], ["sums"], keepdims=0),
        helper.make_node("Log", ["sums"], ["scores"]),
    ]
    constants = {"given": GIVEN, "first": np.array([0]), "second": np.array([1])}
    told = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [N_ITEMS]),
        helper.make_tensor_value_info("cells", TensorProto.FLOAT, [N_ITEMS, K]),
    ]
    graph = helper.make_graph(
        nodes,
        "interests",
        [helper.make_tensor_value_info("items", TensorProto.INT64, ["n"])],
        told[:outputs],
        [numpy_helper.from_array(one, name) for name, one in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    return made


def artifact(folder: Path, outputs: int) -> Path:
    made = small_artifact(20, N_ITEMS, 4, mean_seen=3)
    manifest = replace(made.manifest, kind="encoder", model="bandvae", fold_in={})
    bare = replace(made, manifest=manifest, users=None, fold_in={})
    return write_artifact(folder, bare, {"encoder.onnx": encoder(outputs)})


def test_the_page_shows_each_interests_share_and_what_stands_for_it(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "one", 2)
    cells = GIVEN[[3, 8]].sum(axis=0)
    order = [row for row in np.argsort(-cells.sum(axis=1)) if row not in (3, 8)][:6]
    shares = cells / cells.sum(axis=1, keepdims=True)
    with serving({"one": folder}, tmp_path / "f.sqlite") as asked:
        source = asked.get("/page/recommend?liked=i3&liked=i8&k=6").text
        shown = re.findall(r'<h2><a href="item[^"]*item=i(\d+)"', source)
        assert list(map(int, shown)) == order
        told = [float(one) for one in re.findall(r"of the score, ([\d.]+)", source)]
        np.testing.assert_allclose(told, shares[order].ravel(), atol=6e-4)
        for k in range(K):
            part = source.split(f'aria-label="Items of Interest {k + 1}"')[1]
            stands = re.findall(r"item=i(\d+)", part.split("</ul>")[0])
            assert list(map(int, stands)) == np.argsort(-cells[:, k])[:4].tolist()
            assert f"{round(100 * shares[order, k].mean())}% of this list" in source
        page = look(asked, "item?item=i5&liked=i3&liked=i8")
        assert "interest 3" in page.text
        assert f"{round(100 * shares[5, 2])}%" in page.text


def test_an_encoder_without_interests_shows_none(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "one", 1)
    with serving({"one": folder}, tmp_path / "f.sqlite") as asked:
        page = look(asked, "recommend?liked=i3&liked=i8")
        assert "Recommended for you" in page.text
        assert "Interest 1" not in page.text


@pytest.mark.parametrize("outputs", [1, 2])
def test_lists_are_the_scores(tmp_path: Path, outputs: int) -> None:
    ranker = Ranker.open(artifact(tmp_path / "one", outputs))
    scores = np.log(GIVEN[[3, 8]].sum(axis=(0, 2)))
    scores[[3, 8]] = -np.inf
    found = ranker.recommend_for_items(["i3", "i8"], 28)
    assert found.rows[0].tolist() == np.argsort(-scores)[:28].tolist()
    assert (interests_of(ranker.artifact) is None) == (outputs == 1)


def test_models_of_products_have_no_interests() -> None:
    assert interests_of(small_artifact()) is None
