"""`modalign report`: one self-contained HTML page of runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, DataError, RunError
from modalign.evaluate.compare import Comparison, RunResult
from modalign.evaluate.groups import by_activity
from modalign.evaluate.metrics import METRICS
from modalign.evaluate.protocol import Evaluation
from modalign.experiments.fitted import FittedModel
from modalign.experiments.run_folder import read_run
from modalign.report import html, plots
from modalign.report.finding import finding, p_value
from modalign.report.gallery import LIST, Pictures, chosen_users, gallery
from modalign.report.mechanism import mechanisms
from modalign.report.side_by_side import (
    compare_all,
    load_runs,
    popularity_groups,
)

K = 20


@dataclass(frozen=True)
class _Shown:
    """A run on the page."""

    name: str
    fitted: FittedModel
    evaluation: Evaluation

    @property
    def test(self) -> dict[str, float]:
        found: dict[str, float] = self.fitted.results["test"]
        return found


@dataclass(frozen=True)
class _Column:
    """A column of the tables of metrics: a run, or the mean over seeds, which are not compared."""

    name: str
    metrics: Mapping[str, float]
    compared: bool


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    gallery_users: int = 6,
    data: str | Path | None = None,
) -> Path:
    """Write the page of runs on the same data.

    Args:
        runs: run folders; the mean of those that differ only in their seed is compared.
        out: HTML file; an earlier one is replaced when the new one is complete.
        gallery_users: number of users whose recommendations are shown; a third each of those whom
            the runs together serve best, of the middle, and of those whom they serve worst.
        data: the prepared data, if they have moved since the runs were trained.

    Returns:
        `out`.

    Raises:
        RunError: a folder is not a finished run, or the runs cannot be compared.
        DataError: the data have no test part, or `out` cannot be a file.
        ConfigError: fewer than one user for the gallery.
    """
    folders, out = [Path(run) for run in runs], Path(out)
    _check(folders, out, gallery_users)
    results, comparison = compare_all(folders) if len(folders) > 1 else ([], None)
    shown = _load(folders, data)
    dataset = shown[0].fitted.dataset
    k = _main_k([run.test for run in shown])
    columns = _columns(shown, results)
    main = f"recall@{k}"
    compared = {
        one.name: one.metrics[main] for one in columns if one.compared and main in one.metrics
    }
    users = chosen_users([run.evaluation for run in shown], gallery_users, k)
    page = html.render(
        "page.html",
        dataset=dataset,
        synthetic=bool(dataset.info.get("synthetic", False)),
        split=_split(dataset),
        mask=shown[0].fitted.results["mask"],
        names=[run.name for run in shown],
        k=k,
        finding=finding(main, compared, comparison, shown[0].evaluation.n_users),
        columns=columns,
        tables=_tables(columns, comparison, k),
        tests=_tests(comparison, k),
        mechanisms=mechanisms({run.name: run.fitted for run in shown}),
        curves=_at_k(shown) + _curves(shown),
        groups=_groups(shown, k),
        gallery=gallery({run.name: run.fitted for run in shown}, users, Pictures(dataset)),
        list_length=LIST,
        runs=[_card(run) for run in shown],
        modalities=_modalities(dataset),
    )
    return html.save(out, page)


def _check(folders: Sequence[Path], out: Path, gallery_users: int) -> None:
    if not folders:
        raise RunError("at least one run folder", "none", "name the folder of a finished run")
    if gallery_users < 1:
        raise ConfigError("at least 1 user in the gallery", str(gallery_users), "ask for 6")
    html.check_target(out)
    for folder in folders:
        if not read_run(folder)[1]["test"]:
            raise DataError("a test part to report on", f"{folder}, trained on data without one",
                            "split the data and train again")  # fmt: skip


def _load(folders: Sequence[Path], data: str | Path | None) -> list[_Shown]:
    k = _main_k([read_run(folder)[1]["test"] for folder in folders])
    shown = []
    for name, fitted in load_runs(folders, data).items():
        evaluation = fitted.evaluate(
            "test", mask=fitted.results["mask"], ks=[k], metrics=("recall", "ndcg")
        )
        shown.append(_Shown(name, fitted, evaluation))
    return shown


def _main_k(tests: Sequence[Mapping[str, float]]) -> int:
    """20 if all runs were measured at it, otherwise the largest cut-off that all have."""
    shared = set.intersection(*(_ks(test, "recall") for test in tests))
    return K if K in shared or not shared else max(shared)


def _ks(test: Mapping[str, float], metric: str) -> set[int]:
    return {int(name.split("@")[1]) for name in test if name.startswith(f"{metric}@")}


# ---------------------------------------------------------------------- tables


def _columns(runs: Sequence[_Shown], results: Sequence[RunResult]) -> list[_Column]:
    """The means over seeds come before their seeds."""
    if not results:
        return [_Column(run.name, run.test, True) for run in runs]
    compared = [_Column(one.name, one.metrics, True) for one in results]
    names = {one.name for one in results}
    return compared + [_Column(run.name, run.test, False) for run in runs if run.name not in names]


def _tables(
    columns: Sequence[_Column], comparison: Comparison | None, k: int
) -> list[dict[str, Any]]:
    """The metrics at `k`, then all others."""
    every = {name for one in columns for name in one.metrics}
    kinds = [*METRICS, *sorted({name.split("@")[0] for name in every} - set(METRICS))]
    order = sorted(every, key=lambda name: (kinds.index(name.split("@")[0]), _k(name)))
    main = [name for name in order if _k(name) == k]
    rest = [name for name in order if _k(name) != k]
    return [
        {"title": title, "rows": [_row(name, columns, comparison) for name in names]}
        for title, names in ((f"At {k}", main), ("All other cut-offs", rest))
        if names
    ]


def _k(metric: str) -> int:
    return int(metric.split("@")[1])


def _row(metric: str, columns: Sequence[_Column], comparison: Comparison | None) -> dict[str, Any]:
    kind = METRICS.get(metric.partition("@")[0])
    rivals = [one.metrics[metric] for one in columns if one.compared and metric in one.metrics]
    winner = None if comparison is None else comparison.winner.get(metric)
    cells = []
    for one in columns:
        value = one.metrics.get(metric)
        ranked = one.compared and kind is not None and kind.accuracy and len(rivals) > 1
        cells.append(
            {
                "text": "" if value is None else f"{value:.4f}",
                "best": ranked and value is not None and value == max(rivals),
                "winner": one.compared and winner == one.name,
            }
        )
    return {"metric": metric, "cells": cells}


def _tests(comparison: Comparison | None, k: int) -> list[dict[str, Any]]:
    if comparison is None:
        return []
    wanted = (f"recall@{k}", f"ndcg@{k}")
    return [
        {
            **vars(t),
            "p": p_value(t.corrected),
            "q": "" if t.corrected_between_seeds is None else p_value(t.corrected_between_seeds),
        }
        for t in comparison.pairs
        if t.metric in wanted
    ]


# ---------------------------------------------------------------------- figures


def _curves(runs: Sequence[_Shown]) -> list[dict[str, str]]:
    key = "valid/recall@20"
    trained = [run for run in runs if len(run.fitted.history) > 1]
    measured = {
        run.name: {h["epoch"]: h[key] for h in run.fitted.history if key in h}
        for run in trained
        if any(key in h for h in run.fitted.history)
    }
    found = []
    if measured:
        best = {run.name: run.fitted.results["best_epoch"] for run in trained}
        svg = plots.lines(
            {name: (list(points), list(points.values())) for name, points in measured.items()},
            "epoch",
            "validation recall@20",
            stars={
                name: (best[name], points[best[name]])
                for name, points in measured.items()
                if best[name] in points
            },
            ids="validation",
        )
        found.append({"title": "Validation recall@20, a star at the best epoch", "svg": svg})
    for index, run in enumerate(trained):
        parts = sorted({key for h in run.fitted.history for key in h if key.startswith("loss/")})
        if parts:
            epochs = [h["epoch"] for h in run.fitted.history]
            series = {
                part[5:]: (epochs, [h.get(part, float("nan")) for h in run.fitted.history])
                for part in parts
            }
            svg = plots.lines(series, "epoch", "loss part, weighted", ids=f"loss-{index}")
            title = f"{run.name}: parts of the loss" if len(parts) > 1 else f"{run.name}: loss"
            if len(parts) == 1:
                title += f" ({parts[0][5:]})"
            found.append({"title": title, "svg": svg})
    return found


def _at_k(runs: Sequence[_Shown]) -> list[dict[str, str]]:
    found = []
    for metric in ("recall", "ndcg"):
        series = {run.name: sorted(_ks(run.test, metric)) for run in runs}
        ticks = sorted(set().union(*series.values()))
        if len(ticks) < 2:
            continue
        svg = plots.lines(
            {
                run.name: (series[run.name], [run.test[f"{metric}@{k}"] for k in series[run.name]])
                for run in runs
            },
            "K",
            f"test {metric}@K",
            ticks=ticks,
            ids=metric,
        )
        found.append({"title": f"Test {metric} at each cut-off K", "svg": svg})
    return found


def _groups(runs: Sequence[_Shown], k: int) -> list[dict[str, Any]]:
    activity = {run.name: by_activity(run.evaluation.per_user) for run in runs}
    popularity = {
        run.name: popularity_groups(run.evaluation, run.fitted.dataset, k) for run in runs
    }
    return [
        _group_figure(f"Recall@{k} by training items of a user", activity, "n_users", k),
        _group_figure(f"Recall@{k} by popularity of the hidden item", popularity, "n_pairs", k),
    ]


def _group_figure(
    title: str, frames: Mapping[str, pl.DataFrame], size: str, k: int
) -> dict[str, Any]:
    first = next(iter(frames.values()))
    sizes = [f"{n:,} {'users' if size == 'n_users' else 'hidden'}" for n in first[size]]
    groups = first["group"].to_list()
    series = {name: frame[f"recall@{k}"].fill_null(0.0).to_list() for name, frame in frames.items()}
    labels = [f"{group}\n{n}" for group, n in zip(groups, sizes, strict=True)]
    return {
        "title": title,
        "svg": plots.bars(labels, series, f"recall@{k}", ids=size.replace("_", "-")),
        "names": list(series),
        "rows": [
            {"group": group, "size": n, "cells": [f"{series[name][row]:.4f}" for name in series]}
            for row, (group, n) in enumerate(zip(groups, sizes, strict=True))
        ],
    }


# ---------------------------------------------------------------------- runs and data


def _card(run: _Shown) -> dict[str, Any]:
    r = run.fitted.results
    closed = "one pass, no epochs" if not r.get("epochs") else f"{r['epochs']} epochs"
    facts = [f"{r['parameters']:,} parameters", f"{closed} in {r['seconds']:.1f} s"]
    if r.get("epochs"):
        facts.append(f"best epoch {r['best_epoch']}")
    return {
        "name": run.name,
        "model": run.fitted.spec.name,
        "paper": run.fitted.spec.paper,
        "summary": run.fitted.spec.summary,
        "facts": ", ".join([*facts, f"seed {r['seed']}"]),
        "options": run.fitted.config.model_dump(mode="json"),
    }


def _split(dataset: Dataset) -> str:
    split = dataset.info.get("split")
    if not isinstance(split, Mapping):
        return "as given"
    seed = split.get("seed")
    return str(split.get("kind", "as given")) + (f", seed {seed}" if seed is not None else "")


def _modalities(dataset: Dataset) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "width": m.dim,
            "encoder": m.provenance.get("encoder", "given"),
            "missing": f"{int((~m.present).sum()):,} of {len(m):,}",
        }
        for name, m in sorted(dataset.modalities.items())
    ]
