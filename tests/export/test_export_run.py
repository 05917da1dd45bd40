from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modalign.data.dataset import Dataset
from modalign.errors import ArtifactError, ConfigError
from modalign.experiments.fit import fit
from modalign.experiments.fitted import FittedModel
from modalign.export.export_run import export_run
from modalign.models._registry import get
from modalign_serve.artifact.read import read_artifact
from modalign_serve.ranker.ranker import Ranker
from modalign_serve.ranker.rules import Rules

SMALL = {"bandvae": {"plan": "norm"}}
EPOCHS = {"cm3": 2, "bandvae": 1, "multivae": 5, "lightgcn": 3, "freedom": 2, "vbpr": 2}


def lists(fitted: FittedModel, users: list[str], k: int) -> dict[str, list[str]]:
    """What the trained model recommends."""
    frame = fitted.recommend(users, k)
    parts = frame.partition_by("user_id", as_dict=True)
    return {str(key[0]): part["item_id"].to_list() for key, part in parts.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "bpr",
        "lightgcn",
        "cm3",
        "freedom",
        "vbpr",
        "popularity",
        "ease",
        "itemknn",
        "multivae",
        "bandvae",
    ],
)
def test_served_lists_are_the_trained_ones(name: str, data: Dataset, out: Path) -> None:
    spec = get(name)
    options = {**spec.toy, **SMALL.get(name, {})}
    if "epochs" in spec.config.model_fields:
        options["epochs"] = EPOCHS.get(name, 5)
    fitted = fit(data, name, seed=1, **options)
    made = export_run(fitted, out, adapter=False)
    users = [f"u{row}" for row in range(59)]  # the last one has no interaction
    ranker = Ranker.open(out, verify="full")
    served = ranker.recommend(users, 5)
    trained = lists(fitted, users, 5)
    same = [served.ids(row) == trained[user] for row, user in enumerate(users)]
    assert np.mean(same) > 0.9, made.manifest.kind  # rounding may swap neighbours
    assert made.manifest.loss["overlap@20"] > 0.99
    known = made.manifest.metrics["test"]
    assert known == fitted.results["test"]
    if name not in ("popularity",):
        ranker.update({"somebody": served.ids(0)[:3]})
        assert ranker.recommend(["somebody"], 5).basis == ("folded",)


def test_what_is_known_of_items_goes_along(bpr: FittedModel, out: Path) -> None:
    made = export_run(bpr, out, adapter=False)
    assert made.left_out == ["tags"]
    ranker = Ranker.open(out)
    catalogue = ranker.catalogue
    assert catalogue.record(5) == {"taste": catalogue.record(5)["taste"], "title": "Item 5",
                                   "colour": None, "price": None}  # fmt: skip
    only = ranker.recommend(["u1"], 40, Rules(where={"colour": "red", "price": {"min": 5}}))
    rows = [row for row in only.rows[0].tolist() if row >= 0]
    assert rows
    assert all(row % 3 == 0 and row >= 10 and row % 5 for row in rows)


def test_seen_is_training_and_validation(bpr: FittedModel, data: Dataset, out: Path) -> None:
    export_run(bpr, out, adapter=False)
    artifact = read_artifact(out)
    for user in (0, 7):
        parts = (data.train, data.valid)
        had = np.unique(np.concatenate([part.items[part.users == user] for part in parts]))
        assert artifact.seen.row(user).tolist() == had.tolist()
        history = Ranker.open(out).history(f"u{user}")
        assert history == [f"i{row}" for row in had]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_loss_is_what_it_is(bpr: FittedModel, out: Path, dtype: str) -> None:
    made = export_run(bpr, out, dtype=dtype, adapter=False)  # type: ignore[arg-type]
    users = [f"u{row}" for row in range(59)]
    narrow = Ranker.open(out).recommend(users, 20)
    trained = lists(bpr, users, 20)
    pairs = [(narrow.ids(row), trained[user]) for row, user in enumerate(users)]
    shared = np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs])
    assert made.manifest.loss["overlap@20"] == pytest.approx(float(shared), abs=1e-6)
    assert 0 < made.manifest.loss["score_error_in_deviations"] < 0.05
    plain = export_run(bpr, out.with_name("plain"), adapter=False)
    sizes = [one.manifest.files["items.npy"].size for one in (made, plain)]
    assert sizes[0] < sizes[1]


def test_an_index_is_measured(bpr: FittedModel, out: Path) -> None:
    made = export_run(bpr, out, index="hnsw", adapter=False)
    assert made.manifest.index["recall@20"] > 0.95
    users = [f"u{row}" for row in range(5)]
    near, exact = Ranker.open(out, search="hnsw"), Ranker.open(out, search="exact")
    assert (near.recommend(users, 5).rows == exact.recommend(users, 5).rows).mean() > 0.9
    with pytest.raises(ConfigError, match="hnsw"):
        export_run(bpr, out, index="best", overwrite=True)  # type: ignore[arg-type]


def test_the_same_run_gives_the_same_files(bpr: FittedModel, out: Path) -> None:
    first = export_run(bpr, out).manifest
    second = export_run(bpr, out, overwrite=True).manifest
    assert first.files == second.files
    with pytest.raises(ArtifactError, match="overwrite"):
        export_run(bpr, out, adapter=False)


def test_pictures_go_along(bpr: FittedModel, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(b"picture")
    (tmp_path / "outside.png").write_bytes(b"other")
    names = ["images/a.png", "images/none.png", "../outside.png", *[None] * 37]
    table = bpr.dataset.item_table.with_columns(image=pl.Series(names, dtype=pl.Utf8))
    given = replace(bpr, dataset=replace(bpr.dataset, item_table=table, folder=folder))
    found = read_artifact(export_run(given, tmp_path / "a", adapter=False).folder)
    assert [found.picture_name(row) for row in range(4)] == ["images/a.png", *[None] * 3]
    assert found.pictures is not None
    assert found.pictures.read("images/a.png") == b"picture"
    without = export_run(given, tmp_path / "b", adapter=False, images=False)
    assert read_artifact(without.folder).pictures is None


SERVE = """
import json, sys
from modalign_serve.ranker.ranker import Ranker
from modalign_serve.ranker.rules import Rules
import numpy as np
ranker = Ranker.open(sys.argv[1])
widths = ranker.adapter.widths
ranker.add_item("new", features={k: np.ones(w) for k, w in widths.items()})
ids = ranker.recommend(["u1"], 50).ids()
why = ranker.explain("new", user="u1")
print(json.dumps(["new" in ids, sorted(why.nearest), "torch" in sys.modules]))
"""


@pytest.mark.slow
def test_a_fresh_process_serves_new_items_without_torch(bpr: FittedModel, out: Path) -> None:
    export_run(bpr, out)
    done = subprocess.run([sys.executable, "-c", SERVE, str(out)], check=True, capture_output=True)
    assert json.loads(done.stdout) == [True, ["image", "text"], False]


def test_segments_of_a_vector_are_named(data: Dataset, out: Path) -> None:
    spec = get("cm3")
    fitted = fit(data, "cm3", seed=1, **{**spec.toy, "epochs": 1})
    export_run(fitted, out, adapter=False)
    why = Ranker.open(out).explain("i3", user="u1")
    assert list(why.parts) == ["image", "text", "fusion"]
    assert why.score == pytest.approx(sum(why.parts.values()), rel=1e-4)
