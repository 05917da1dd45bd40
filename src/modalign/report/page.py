"""`modalign report`: one self-contained HTML page of runs side by side."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import polars as pl
from PIL import Image, UnidentifiedImageError

from modalign.data.dataset import Dataset
from modalign.data.files import write_aside
from modalign.errors import DataError
from modalign.evaluate.protocol import Evaluation
from modalign.experiment import load_model
from modalign.fitted import FittedModel
from modalign.report import plots
from modalign.report.lists import hidden_items, liked
from modalign.report.side_by_side import (
    activity_groups,
    compare_runs,
    folder_names,
    popularity_groups,
)

LIST = 10
THUMBNAIL = 96
METRICS = ("recall", "ndcg", "precision", "map", "mrr", "hit", "coverage", "novelty", "popularity")


@dataclass(frozen=True)
class _Run:
    name: str
    fitted: FittedModel
    history: list[dict[str, float]]
    evaluation: Evaluation


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    gallery_users: int = 6,
    data: str | Path | None = None,
) -> Path:
    """Draw the page for runs on the same data, and write it (aside first).

    Args:
        runs: run folders.
        out: HTML file.
        gallery_users: how many users' recommendations to show; a third each of those the first
            run serves best, of the middle, and of those it serves worst.
        data: the prepared data, where they are no longer where the runs found them.

    Raises:
        RunError: a folder is no finished run, or the runs can not be compared.
        DataError: the data have no test part.
    """
    folders = [Path(run) for run in runs]
    out = Path(out)
    if out.is_dir():
        raise DataError("a file to write the page to", f"{out}, which is a folder", "name a file")
    comparison = compare_runs(folders) if len(folders) > 1 else None
    names = list(folder_names(folders).values())
    loaded = [_load(folder, name, data) for folder, name in zip(folders, names, strict=True)]
    dataset = loaded[0].fitted.dataset
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    html = environment.get_template("page.html").render(
        dataset=dataset,
        synthetic=bool(dataset.info.get("synthetic", False)),
        split=dataset.info.get("split", {}),
        mask=loaded[0].fitted.results["mask"],
        runs=[_card(run) for run in loaded],
        names=names,
        rows=_metric_rows(loaded, {} if comparison is None else comparison.winner),
        tests=[] if comparison is None else comparison.pairs,
        curves=_curves(loaded),
        at_k=_at_k(loaded),
        groups=_groups(loaded),
        gallery=_gallery(loaded, gallery_users),
        modalities=_modalities(dataset),
    )
    with write_aside(out) as aside:
        aside.write_text(html, encoding="utf-8")
    return out


def _load(folder: Path, name: str, data: str | Path | None) -> _Run:
    fitted = load_model(folder, data)
    if not len(fitted.dataset.test):
        raise DataError(
            "a test part to report on", f"{fitted.dataset.name} without one", "split it"
        )
    ks = sorted({int(key.split("@")[1]) for key in fitted.results["test"]} | {20})
    evaluation = fitted.evaluate("test", mask=fitted.results["mask"], ks=ks)
    log = folder / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return _Run(name, fitted, [json.loads(line) for line in lines], evaluation)


def _card(run: _Run) -> dict[str, Any]:
    r = run.fitted.results
    return {
        "name": run.name,
        "model": run.fitted.spec.name,
        "paper": run.fitted.spec.paper,
        "summary": run.fitted.spec.summary,
        "parameters": f"{r['parameters']:,}",
        "seconds": f"{r['seconds']:.1f}",
        "epochs": r["epochs"],
        "best_epoch": r["best_epoch"],
        "seed": r["seed"],
        "options": run.fitted.config.model_dump(mode="json"),
    }


def _metric_rows(runs: Sequence[_Run], winners: Mapping[str, str | None]) -> list[dict[str, Any]]:
    first = runs[0].fitted.results["test"]
    rows = []
    for name in first:
        values = {run.name: run.fitted.results["test"].get(name) for run in runs}
        known = [v for v in values.values() if v is not None]
        kind = name.split("@")[0]
        rows.append(
            {
                "metric": name,
                "cells": [
                    {
                        "text": "" if v is None else f"{v:.4f}",
                        "best": v is not None and kind in METRICS[:6] and v == max(known),
                        "winner": winners.get(name) == run_name,
                    }
                    for run_name, v in values.items()
                ],
            }
        )
    return rows


def _curves(runs: Sequence[_Run]) -> list[dict[str, str]]:
    key = "valid/recall@20"
    found = []
    trained = [run for run in runs if len(run.history) > 1]
    if trained:
        series = {
            run.name: (
                [h["epoch"] for h in run.history if key in h],
                [h[key] for h in run.history if key in h],
            )
            for run in trained
        }
        stars = {
            run.name: (
                run.fitted.results["best_epoch"],
                max(h[key] for h in run.history if key in h),
            )
            for run in trained
        }
        svg = plots.lines(series, "epoch", "validation Recall@20", stars=stars)
        found.append({"title": "Validation Recall@20, a star at the best epoch", "svg": svg})
    for run in trained:
        parts = [k for k in run.history[0] if k.startswith("loss/")]
        epochs = [h["epoch"] for h in run.history]
        series = {k[5:]: (epochs, [h[k] for h in run.history]) for k in parts}
        svg = plots.lines(series, "epoch", "loss part, weighted")
        found.append({"title": f"{run.name}: the parts of the loss", "svg": svg})
    return found


def _at_k(runs: Sequence[_Run]) -> list[dict[str, str]]:
    found = []
    for metric, title in (("recall", "Recall@K"), ("ndcg", "NDCG@K")):
        series = {}
        for run in runs:
            test = run.fitted.results["test"]
            ks = [int(k.split("@")[1]) for k in test if k.startswith(f"{metric}@")]
            series[run.name] = (ks, [test[f"{metric}@{k}"] for k in ks])
        svg = plots.lines(series, "K", title, ticks=ks, points=True)
        found.append({"title": f"Test {title}", "svg": svg})
    return found


def _groups(runs: Sequence[_Run]) -> list[dict[str, str]]:
    found = []
    activity = {run.name: activity_groups(run.evaluation) for run in runs}
    found.append(_group_figure("Recall@20 by training items of a user", activity))
    popularity = {
        run.name: popularity_groups(run.evaluation, run.fitted.dataset, 20) for run in runs
    }
    found.append(_group_figure("Recall@20 by popularity of the item", popularity))
    return found


def _group_figure(title: str, frames: Mapping[str, pl.DataFrame]) -> dict[str, str]:
    groups = next(iter(frames.values()))["group"].to_list()
    series = {name: frame["recall@20"].fill_null(0.0).to_list() for name, frame in frames.items()}
    return {"title": title, "svg": plots.bars(groups, series, "Recall@20")}


def _gallery(runs: Sequence[_Run], n: int) -> list[dict[str, Any]]:
    fitted = runs[0].fitted
    dataset = fitted.dataset
    rows = _chosen_users(runs[0].evaluation.per_user, n)
    ids = [str(one) for one in rows["user_id"]]
    lists = {
        run.name: run.fitted.recommend(ids, LIST, filter_seen=True).partition_by(
            "user_id", as_dict=True
        )
        for run in runs
    }
    found = []
    for user_id, why in zip(ids, rows["why"], strict=True):
        hidden = hidden_items(dataset, user_id)
        before = liked(dataset, user_id)
        found.append(
            {
                "user": user_id,
                "why": why,
                "n_liked": len(before),
                "liked": [_tile(dataset, one["item"], one["title"]) for one in before[:LIST]],
                "hidden": len(hidden),
                "lists": [
                    {
                        "name": name,
                        "items": [
                            _tile(
                                dataset,
                                int(dataset.items.rows([row["item_id"]])[0]),
                                row["title"],
                                row["item_id"] in hidden,
                            )
                            for row in per_user[(user_id,)].to_dicts()
                        ],
                    }
                    for name, per_user in lists.items()
                ],
            }
        )
    return found


def _chosen_users(per_user: pl.DataFrame, n: int) -> pl.DataFrame:
    """A third each of the best, the middle and the worst served, always the same ones."""
    ranked = per_user.sort("recall@20", "user_id", descending=[True, False])
    third = max(n // 3, 1)
    size = len(ranked)
    places = [
        *(("served well", i) for i in range(min(third, size))),
        *(("in the middle", size // 2 + i) for i in range(min(third, size))),
        *(("served badly", size - 1 - i) for i in range(min(third, size))),
    ][:n]
    rows = np.array([min(place, size - 1) for _, place in places])
    return (
        ranked[rows]
        .with_columns(why=pl.Series([why for why, _ in places]))
        .unique("user_id", keep="first", maintain_order=True)
    )


def _tile(dataset: Dataset, item: int, title: str, hit: bool = False) -> dict[str, Any]:
    path = dataset.image_path(item)
    return {"title": title, "hit": hit, "picture": None if path is None else _picture(path)}


@lru_cache(maxsize=512)
def _picture(path: Path) -> str | None:
    """The picture as a small data address; None where it can not be read."""
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL * 3 // 2))
            file = io.BytesIO()
            small.save(file, "JPEG", quality=82)
    except (OSError, UnidentifiedImageError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _modalities(dataset: Dataset) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "width": m.dim,
            "encoder": m.provenance.get("encoder", "given"),
            "missing": int((~m.present).sum()),
        }
        for name, m in sorted(dataset.modalities.items())
    ]
