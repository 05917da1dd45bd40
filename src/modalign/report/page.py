"""`modalign report`: one self-contained HTML page of runs side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from modalign.core.files import write_aside
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, DataError, RunError
from modalign.evaluate.compare import Comparison, RunResult
from modalign.evaluate.metrics import METRICS
from modalign.evaluate.protocol import Evaluation
from modalign.experiments.fit import load_model
from modalign.experiments.fitted import FittedModel
from modalign.experiments.run_folder import read_run
from modalign.report import plots
from modalign.report.gallery import LIST, Pictures, chosen_users, gallery
from modalign.report.side_by_side import (
    activity_groups,
    compare_all,
    folder_names,
    popularity_groups,
)
from modalign.report.words import finding, p_value

K = 20


@dataclass(frozen=True)
class _Run:
    name: str
    fitted: FittedModel
    history: list[dict[str, float]]
    evaluation: Evaluation

    @property
    def test(self) -> dict[str, float]:
        found: dict[str, float] = self.fitted.results["test"]
        return found


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    gallery_users: int = 6,
    data: str | Path | None = None,
) -> Path:
    """Draw the page for runs on the same data, and write it (aside first).

    Args:
        runs: run folders; those that differ in their seed alone are compared by their mean.
        out: HTML file.
        gallery_users: how many users' recommendations to show; a third each of those the runs
            together serve best, of the middle, and of those they serve worst.
        data: the prepared data, where they are no longer where the runs found them.

    Raises:
        RunError: a folder is no finished run, or the runs can not be compared.
        DataError: the data have no test part, or `out` can not be a file.
        ConfigError: fewer than one user for the gallery.
    """
    folders, out = [Path(run) for run in runs], Path(out)
    _check(folders, out, gallery_users)
    results, comparison = compare_all(folders) if len(folders) > 1 else ([], None)
    loaded = _load(folders, data)
    dataset = loaded[0].fitted.dataset
    k = _main_k([run.test for run in loaded])
    columns = _columns(loaded, results)
    main = f"recall@{k}"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    compared = {name: values[main] for name, values, own in columns if own and main in values}
    users = chosen_users([run.evaluation for run in loaded], gallery_users, k)
    html = environment.get_template("page.html").render(
        dataset=dataset,
        synthetic=bool(dataset.info.get("synthetic", False)),
        split=_split(dataset),
        mask=loaded[0].fitted.results["mask"],
        names=[run.name for run in loaded],
        k=k,
        finding=finding(main, compared, comparison, loaded[0].evaluation.n_users),
        columns=[{"name": name, "compared": own} for name, _, own in columns],
        tables=_tables(columns, comparison, k),
        tests=_tests(comparison, k),
        curves=_at_k(loaded) + _curves(loaded),
        groups=_groups(loaded, k),
        gallery=gallery({run.name: run.fitted for run in loaded}, users, Pictures(dataset)),
        list_length=LIST,
        runs=[_card(run) for run in loaded],
        modalities=_modalities(dataset),
    )
    with write_aside(out) as aside:
        aside.write_text(html, encoding="utf-8")
    return out


def _check(folders: Sequence[Path], out: Path, gallery_users: int) -> None:
    if not folders:
        raise RunError("one or more run folders", "none", "name the folder of a finished run")
    if gallery_users < 1:
        raise ConfigError("1 user or more in the gallery", str(gallery_users), "ask for 6")
    if out.is_dir():
        raise DataError("a file to write the page to", f"{out}, which is a folder", "name a file")
    above = next(one for one in out.absolute().parents if one.exists())
    if not above.is_dir():
        raise DataError("a folder to write the page into", f"the file {above}", "choose another")
    for folder in folders:
        if not read_run(folder)[1]["test"]:
            raise DataError("a test part to report on", f"{folder}, trained on data without one",
                            "split the data and train again")  # fmt: skip


def _load(folders: Sequence[Path], data: str | Path | None) -> list[_Run]:
    names = folder_names(folders)
    k = _main_k([read_run(folder)[1]["test"] for folder in folders])
    # Runs on one data folder share what is read of it.
    homes: dict[Path, Dataset] = {}
    loaded = []
    for folder in folders:
        home = (folder / str(read_run(folder)[0]["data"])).resolve() if data is None else Path(data)
        fitted = load_model(folder, homes.get(home, data))
        homes[home] = fitted.dataset
        evaluation = fitted.evaluate(
            "test", mask=fitted.results["mask"], ks=[k], metrics=("recall", "ndcg")
        )
        loaded.append(_Run(names[folder], fitted, _history(folder), evaluation))
    return loaded


def _history(folder: Path) -> list[dict[str, float]]:
    log = folder / "metrics.jsonl"
    try:
        return [json.loads(line) for line in log.read_text().splitlines()]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise RunError(
            f"one JSON object on each line of {log}", str(error), "train the run again"
        ) from error


def _main_k(tests: Sequence[Mapping[str, float]]) -> int:
    """20 where all runs were measured at it, else the largest cut-off all have."""
    shared = set.intersection(*(_ks(test, "recall") for test in tests))
    return K if K in shared or not shared else max(shared)


def _ks(test: Mapping[str, float], metric: str) -> set[int]:
    return {int(name.split("@")[1]) for name in test if name.startswith(f"{metric}@")}


# ---------------------------------------------------------------------- tables


def _columns(
    runs: Sequence[_Run], results: Sequence[RunResult]
) -> list[tuple[str, Mapping[str, float], bool]]:
    """Name, metrics, and whether it is compared: means over seeds come before their seeds."""
    if not results:
        return [(run.name, run.test, True) for run in runs]
    compared = [(one.name, one.metrics, True) for one in results]
    names = {one.name for one in results}
    return compared + [(run.name, run.test, False) for run in runs if run.name not in names]


def _tables(
    columns: Sequence[tuple[str, Mapping[str, float], bool]], comparison: Comparison | None, k: int
) -> list[dict[str, Any]]:
    """The metrics at `k`, then all others."""
    every = {name for _, values, _ in columns for name in values}
    kinds = [*METRICS, *sorted({name.split("@")[0] for name in every} - set(METRICS))]
    order = sorted(every, key=lambda name: (kinds.index(name.split("@")[0]), _k(name)))
    main = [name for name in order if _k(name) == k]
    rest = [name for name in order if _k(name) != k]
    found = []
    for title, names in ((f"At {k}", main), ("All other cut-offs", rest)):
        if names:
            rows = [_row(name, columns, comparison) for name in names]
            found.append({"title": title, "rows": rows})
    return found


def _k(metric: str) -> int:
    return int(metric.split("@")[1])


def _row(
    metric: str,
    columns: Sequence[tuple[str, Mapping[str, float], bool]],
    comparison: Comparison | None,
) -> dict[str, Any]:
    kind = METRICS.get(metric.partition("@")[0])
    rivals = [values[metric] for _, values, own in columns if own and metric in values]
    winner = None if comparison is None else comparison.winner.get(metric)
    cells = []
    for name, values, own in columns:
        value = values.get(metric)
        ranked = own and kind is not None and kind.accuracy and len(rivals) > 1
        cells.append(
            {
                "text": "" if value is None else f"{value:.4f}",
                "best": ranked and value is not None and value == max(rivals),
                "winner": own and winner == name,
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


def _curves(runs: Sequence[_Run]) -> list[dict[str, str]]:
    key = "valid/recall@20"
    trained = [run for run in runs if len(run.history) > 1]
    measured = {
        run.name: {h["epoch"]: h[key] for h in run.history if key in h}
        for run in trained
        if any(key in h for h in run.history)
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
        parts = sorted({key for h in run.history for key in h if key.startswith("loss/")})
        if parts:
            epochs = [h["epoch"] for h in run.history]
            series = {
                part[5:]: (epochs, [h.get(part, float("nan")) for h in run.history])
                for part in parts
            }
            svg = plots.lines(series, "epoch", "loss part, weighted", ids=f"loss-{index}")
            title = f"{run.name}: parts of the loss" if len(parts) > 1 else f"{run.name}: loss"
            if len(parts) == 1:
                title += f" ({parts[0][5:]})"
            found.append({"title": title, "svg": svg})
    return found


def _at_k(runs: Sequence[_Run]) -> list[dict[str, str]]:
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


def _groups(runs: Sequence[_Run], k: int) -> list[dict[str, Any]]:
    activity = {run.name: activity_groups(run.evaluation) for run in runs}
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


# ---------------------------------------------------------------------- where it came from


def _card(run: _Run) -> dict[str, Any]:
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
