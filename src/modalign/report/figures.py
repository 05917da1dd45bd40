"""`modalign figures`: how runs' vectors and scores differ, and why transport is debiased.

Longer than most modules here, as each figure's caption, numbers and data stand together.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import polars as pl

from modalign.core import seeds
from modalign.core.files import write_folder_aside
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, DataError, RunError
from modalign.experiments.fit import load_model
from modalign.experiments.fitted import FittedModel
from modalign.experiments.run_folder import read_run
from modalign.report import _canvas, _flow, _measures
from modalign.report._canvas import Curves, short
from modalign.report._measures import Floats, Sample
from modalign.report.side_by_side import folder_names

BLOCK = 50
KINDS = ("users", "items")
NAMES = (
    "fig1ab-distances", "fig1c-neighbours", "fig1def-scores", "fig1def-standardised",
    "fig3-flow-1d", "fig3-flow-2d", "fig3-losses", "fig4-differences",
)  # fmt: skip
"""All figures there are; those of an earlier call that are not drawn again are removed."""


@dataclass(frozen=True)
class Drawn:
    """One figure.

    Attributes:
        name: of its files.
        title, caption: for people.
        figure: the drawing.
        data: what is drawn: a table (written as CSV) or a document (as JSON).
        numbers: a summary, one row for each run.
    """

    name: str
    title: str
    caption: str
    figure: Any
    data: pl.DataFrame | dict[str, Any]
    numbers: list[dict[str, Any]]

    @property
    def data_file(self) -> str:
        """Name of the file with the data."""
        return f"{self.name}.{'csv' if isinstance(self.data, pl.DataFrame) else 'json'}"


@dataclass(frozen=True)
class _Run:
    name: str
    fitted: FittedModel
    vectors: tuple[Floats, Floats] | None

    @property
    def label(self) -> str:
        """Name and recall, at 20 where it was measured."""
        test = self.fitted.results["test"]
        ks = sorted(int(name.split("@")[1]) for name in test if name.startswith("recall@"))
        if not ks:
            return short(self.name)
        k = 20 if 20 in ks else ks[-1]
        return f"{short(self.name)}, Recall@{k} {test[f'recall@{k}']:.4f}"


def write_figures(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    pairs: int = 20_000,
    seed: int = 1,
    data: str | Path | None = None,
) -> dict[str, Any]:
    """Draw the figures and write a folder: PNG, SVG and data of each, and `index.html`.

    Args:
        runs: run folders on the same data; the others are compared with the first. None at all
            draws the gradient flows alone, which know of no run.
        out: folder; figures of an earlier call that are not drawn again are removed from it.
        pairs: most observed pairs, and random ones, to score.
        seed: of the sample and of the flows' points.
        data: the prepared data, where they are no longer where the runs found them.

    Returns:
        `figures.json`: for each figure its files and a summary in numbers; what was left out.

    Raises:
        RunError: a folder is no finished run, stands twice, or is of other data.
        DataError: no test interaction can be scored, or `out` can not be a folder.
        ConfigError: less than one pair.
    """
    folders, out = [Path(run) for run in runs], Path(out)
    _check(folders, out, pairs)
    loaded = _load(folders, data)
    notes: list[str] = []
    drawn = list(_of_runs(loaded, pairs, seed, notes)) if loaded else []
    drawn = sorted([*drawn, *_of_flows(seed)], key=lambda one: NAMES.index(one.name))
    summary = {
        "runs": {run.name: str(run.fitted.folder) for run in loaded},
        "reference": loaded[0].name if loaded else None,
        "data": loaded[0].fitted.dataset.fingerprint if loaded else None,
        "seed": seed,
        "notes": notes,
        "figures": [
            {
                "name": one.name,
                "title": one.title,
                "files": [f"{one.name}.png", f"{one.name}.svg", one.data_file],
                "numbers": one.numbers,
            }
            for one in drawn
        ],
    }
    _write(out, drawn, loaded, summary)
    return summary


# ---------------------------------------------------------------------- runs


def _check(folders: Sequence[Path], out: Path, pairs: int) -> None:
    if pairs < 1:
        raise ConfigError("1 pair or more", str(pairs), "ask for 20000")
    if out.exists() and not out.is_dir():
        raise DataError("a folder to write to", f"{out}, which is a file", "name another")
    above = next(one for one in out.absolute().parents if one.exists())
    if not above.is_dir():
        raise DataError("a folder to write into", f"the file {above}", "choose another")
    seen: dict[Path, Path] = {}
    for folder in folders:
        config, _ = read_run(folder)
        if folder.resolve() in seen:
            raise RunError("every run once", f"{folder} twice", "leave one of them out")
        seen[folder.resolve()] = folder
        first, _ = read_run(folders[0])
        if config["fingerprint"] != first["fingerprint"]:
            raise RunError(
                f"runs on the data of {folders[0]} (fingerprint {first['fingerprint']})",
                f"{folder}, trained on other data (fingerprint {config['fingerprint']})",
                "draw runs on one data set and split",
            )


def _load(folders: Sequence[Path], data: str | Path | None) -> list[_Run]:
    names = folder_names(folders)
    dataset: Dataset | None = None
    loaded = []
    for folder in folders:
        # Runs on other copies of the data have one fingerprint, but features of their own.
        home = (folder / str(read_run(folder)[0]["data"])).resolve() if data is None else Path(data)
        same = dataset is not None and dataset.folder == home
        fitted = load_model(folder, dataset if same else home)
        dataset = fitted.dataset
        loaded.append(_Run(names[folder], fitted, _measures.vectors(fitted)))
    return loaded


def _of_runs(runs: Sequence[_Run], pairs: int, seed: int, notes: list[str]) -> Iterator[Drawn]:
    dataset = runs[0].fitted.dataset
    known = dataset.history.trained
    if all(run.fitted.model.unseen_users for run in runs):
        known = np.diff(dataset.history.read("test").indptr) > 0
    if not known[dataset.test.users].any():
        raise DataError(
            "test interactions of users that all runs can score",
            f"{dataset.name}: none",
            "split the data with a test part of users that training knows, and train again",
        )
    rng = seeds.numpy_generator(seed, "figures", "sample")
    sample = _measures.draw(dataset, known, pairs, BLOCK, rng)
    without = [run.name for run in runs if run.vectors is None]
    if without:
        notes.append(
            f"Without vectors of users and items, and so left out of figures 1(a) to (c): "
            f"{', '.join(without)}."
        )
    masks = {str(run.fitted.results["mask"]) for run in runs}
    if len(masks) > 1:
        notes.append(
            "Recall in legends does not compare: the runs were measured with the masks "
            f"{' and '.join(sorted(masks))}."
        )
    yield from _distances(runs, notes)
    yield from _neighbours(runs)
    scores = {run.name: _scores(run, sample) for run in runs}
    yield _own_scores(runs, sample, scores)
    yield _standardised(runs, sample, scores)
    if len(runs) > 1:
        yield _differences(runs, sample, scores)
    else:
        notes.append("One run alone has nothing to be compared with: figures 1(a), (b) and 4.")


def _distances(runs: Sequence[_Run], notes: list[str]) -> Iterator[Drawn]:
    """Figures 1(a) and (b)."""
    reference, later = runs[0], [run for run in runs[1:] if run.vectors is not None]
    if reference.vectors is None:
        if later:
            notes.append(f"No figures 1(a) and (b): the first run, {reference.name}, "
                         "has no vectors to measure a distance from.")  # fmt: skip
        return
    width = reference.vectors[0].shape[1]
    fitting = [run for run in later if run.vectors and run.vectors[0].shape[1] == width]
    for run in later:
        if run not in fitting and run.vectors is not None:
            notes.append(
                f"Left out of figures 1(a) and (b): {run.name}, whose vectors have "
                f"{run.vectors[0].shape[1]} numbers, not {width} as those of {reference.name}."
            )
    if not fitting:
        return
    trained = _trained(reference.fitted.dataset)
    found = {run.name: _aligned(reference, run, trained) for run in fitting}
    ways = {"raw": "raw", "rotated": "rotated", "scaled": "rotated and scaled"}
    panels = [
        [
            _panel(
                f"{kind}, {title}",
                "distance to the reference's vector",
                {name: by[kind][way] for name, by in found.items()},
            )
            for way, title in ways.items()
        ]
        for kind in KINDS
    ]
    ids = _ids(reference.fitted.dataset)
    data = pl.concat(
        pl.DataFrame(
            {"run": name, "kind": kind[:-1], "id": ids[kind].filter(pl.Series(trained[side]))}
            | by[kind]
        )
        for name, by in found.items()
        for side, kind in enumerate(KINDS)
    )
    numbers = [
        {"run": name}
        | {
            f"{kind}, {ways[way]}": float(np.median(by[kind][way]))
            for kind in KINDS
            for way in ways
        }
        for name, by in found.items()
    ]
    yield Drawn(
        "fig1ab-distances",
        f"Figure 1(a), (b): distances to the vectors of {reference.name}",
        f"The length of the difference between a node's vector in {reference.name} and in a later "
        "run: raw, after the rotation of all vectors together that fits best (orthogonal "
        "Procrustes; it changes no score), and after one factor for the scale as well. Look for "
        "curves further to the left: such a run keeps the reference's geometry. Raw distances of "
        "runs that were trained apart say little, as their axes are arbitrary. Nodes without "
        "training interactions are left out. Numbers: medians.",
        _canvas.densities(panels, _labels(runs)),
        data,
        numbers,
    )


def _aligned(
    reference: _Run, run: _Run, trained: tuple[np.ndarray, np.ndarray]
) -> dict[str, dict[str, Floats]]:
    """Distances by kind of node: raw, after rotation, after rotation and scaling."""
    assert reference.vectors is not None
    assert run.vectors is not None
    target = [table[rows] for table, rows in zip(reference.vectors, trained, strict=True)]
    source = [table[rows] for table, rows in zip(run.vectors, trained, strict=True)]
    turn, factor = _measures.procrustes(np.concatenate(source), np.concatenate(target))
    return {
        kind: {
            "raw": np.linalg.norm(t - s, axis=1),
            "rotated": np.linalg.norm(t - s @ turn, axis=1),
            "scaled": np.linalg.norm(t - factor * (s @ turn), axis=1),
        }
        for kind, t, s in zip(KINDS, target, source, strict=True)
    }


def _neighbours(runs: Sequence[_Run]) -> Iterator[Drawn]:
    """Figure 1(c)."""
    dataset = runs[0].fitted.dataset
    train = dataset.history.train
    trained, ids = _trained(dataset), _ids(dataset)
    found = {
        run.name: dict(zip(KINDS, _measures.neighbour_cosines(*run.vectors, train), strict=True))
        for run in runs
        if run.vectors is not None
    }
    if not found:
        return
    kept = {
        name: {kind: by[kind][rows] for kind, rows in zip(KINDS, trained, strict=True)}
        for name, by in found.items()
    }
    panels = [
        [
            _panel(kind, "mean cosine with training neighbours",
                   {name: by[kind] for name, by in kept.items()}, high=1.0)
            for kind in KINDS
        ]
    ]  # fmt: skip
    data = pl.concat(
        pl.DataFrame(
            {
                "run": name,
                "kind": kind[:-1],
                "id": ids[kind].filter(pl.Series(trained[side])),
                "cosine": by[kind],
            }
        )
        for name, by in kept.items()
        for side, kind in enumerate(KINDS)
    )
    numbers = [
        {"run": name} | {kind: float(np.median(by[kind])) for kind in KINDS}
        for name, by in kept.items()
    ]
    yield Drawn(
        "fig1c-neighbours",
        "Figure 1(c): likeness of neighbours",
        "The mean cosine between a node's vector and those of its neighbours in the training "
        "graph: a user's items, an item's users. Look for a student's curve that lies on its "
        "teacher's: the student has taken over the graph's signal without seeing the graph. "
        "Numbers: medians.",
        _canvas.densities(panels, _labels(runs)),
        data,
        numbers,
    )


def _labels(runs: Sequence[_Run]) -> dict[str, str]:
    return {run.name: run.label for run in runs}


def _trained(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Users and items with training interactions: other vectors were never trained."""
    items = np.bincount(dataset.train.items, minlength=dataset.n_items) > 0
    return dataset.history.trained, items


def _ids(dataset: Dataset) -> dict[str, pl.Series]:
    return dict(zip(KINDS, (dataset.users.series, dataset.items.series), strict=True))


def _panel(
    title: str, xlabel: str, series: Mapping[str, Floats], high: float | None = None
) -> Curves:
    """Densities of one quantity on common places."""
    places = _measures.grid(list(series.values()), high)
    curves = {name: (places, _measures.density(v, places, high)) for name, v in series.items()}
    return Curves(title, xlabel, curves)


# ---------------------------------------------------------------------- scores


def _scores(run: _Run, sample: Sample) -> dict[str, Floats]:
    """Scores of the observed and random pairs, (n,), and of the block, (users, items)."""
    block = len(sample.block_users), len(sample.block_items)
    users = np.repeat(sample.block_users, block[1])
    items = np.tile(sample.block_items, block[0])
    return {
        "observed": _measures.pair_scores(run.fitted, sample.users, sample.observed),
        "random": _measures.pair_scores(run.fitted, sample.users, sample.random),
        "block": _measures.pair_scores(run.fitted, users, items).reshape(block),
    }


def _standard(scores: Mapping[str, Floats], kind: str) -> Floats:
    """In deviations of the run's random pairs from their mean: free of the run's own scale."""
    spread = float(scores["random"].std()) or 1.0
    found: Floats = (scores[kind] - scores["random"].mean()) / spread
    return found


def _own_scores(
    runs: Sequence[_Run], sample: Sample, scores: Mapping[str, Mapping[str, Floats]]
) -> Drawn:
    """Figure 1(d) to (f), each run on its own scale."""
    kinds = ("observed", "random")
    panels = []
    for run in runs:
        drawn = _panel(run.label, "predicted score", {k: scores[run.name][k] for k in kinds})
        panels.append(drawn)
    numbers = [
        {"run": run.name, "separated": _separation(scores[run.name])}
        | {f"{k}, mean": float(scores[run.name][k].mean()) for k in kinds}
        | {f"{k}, deviation": float(scores[run.name][k].std()) for k in kinds}
        for run in runs
    ]
    return Drawn(
        "fig1def-scores",
        "Figure 1(d) to (f): predicted scores",
        f"Scores of {len(sample.users):,} observed pairs (user and item of the test part, which "
        "training did not see) and of as many random ones (the same users, each with an item "
        "drawn from the whole catalogue), each run on its own scale. Look for observed pairs to "
        "the right of random ones; the less the curves overlap, the better a run tells them "
        "apart. Numbers: “separated” is the share of sampled pairs of a user where the observed "
        "item scores higher than the random one, ties counted half.",
        _canvas.observed_and_random(panels),
        _score_table(runs, sample, scores),
        numbers,
    )


def _separation(scores: Mapping[str, Floats]) -> float:
    gap = scores["observed"] - scores["random"]
    return float((gap > 0).mean() + 0.5 * (gap == 0).mean())


def _standardised(
    runs: Sequence[_Run], sample: Sample, scores: Mapping[str, Mapping[str, Floats]]
) -> Drawn:
    """Figure 1(d) to (f), all runs on one scale."""
    panels = [
        [
            _panel(
                title,
                "score, in deviations of random pairs",
                {run.name: _standard(scores[run.name], kind) for run in runs},
            )
            for kind, title in (("observed", "observed (test) pairs"), ("random", "random pairs"))
        ]
    ]
    numbers = [
        {"run": run.name, "observed, mean": float(_standard(scores[run.name], "observed").mean())}
        for run in runs
    ]
    return Drawn(
        "fig1def-standardised",
        "Figure 1(d) to (f), on one scale",
        "The same scores, less the mean of the run's random pairs and divided by their deviation, "
        "so that runs on other scales lie over each other. Look for a student whose curves have "
        "the shape of its teacher's. Left out: one pair in 250 at each end.",
        _canvas.densities(panels, _labels(runs)),
        _score_table(runs, sample, {r.name: {k: _standard(scores[r.name], k)
                                             for k in ("observed", "random")} for r in runs}),
        numbers,
    )  # fmt: skip


def _score_table(
    runs: Sequence[_Run], sample: Sample, scores: Mapping[str, Mapping[str, Floats]]
) -> pl.DataFrame:
    ids = _ids(runs[0].fitted.dataset)
    return pl.concat(
        pl.DataFrame(
            {
                "pair": kind,
                "user_id": ids["users"].gather(sample.users),
                "item_id": ids["items"].gather(items),
            }
            | {f"score of {run.name}": scores[run.name][kind] for run in runs}
        )
        for kind, items in (("observed", sample.observed), ("random", sample.random))
    )


def _differences(
    runs: Sequence[_Run], sample: Sample, scores: Mapping[str, Mapping[str, Floats]]
) -> Drawn:
    """Figure 4."""
    reference, later = scores[runs[0].name], runs[1:]
    raw = {run.name: np.abs(reference["block"] - scores[run.name]["block"]) for run in later}
    own = _standard(reference, "block")
    free = {run.name: np.abs(own - _standard(scores[run.name], "block")) for run in later}
    ids = _ids(runs[0].fitted.dataset)
    n_users, n_items = len(sample.block_users), len(sample.block_items)
    data = pl.DataFrame(
        {
            "user_id": ids["users"].gather(np.repeat(sample.block_users, n_items)),
            "item_id": ids["items"].gather(np.tile(sample.block_items, n_users)),
        }
        | {f"score of {run.name}": scores[run.name]["block"].ravel() for run in runs}
        | {f"difference of {name}": values.ravel() for name, values in raw.items()}
        | {f"standardised difference of {name}": v.ravel() for name, v in free.items()}
    )
    numbers = [
        {
            "run": run.name,
            "mean difference": float(raw[run.name].mean()),
            "standardised": float(free[run.name].mean()),
        }
        for run in later
    ]
    name = short(runs[0].name)
    return Drawn(
        "fig4-differences",
        f"Figure 4: score differences from {runs[0].name}",
        f"The absolute difference between the score of {runs[0].name} and of a later run for "
        f"{n_users} sampled users and {n_items} sampled items, as scored (above) and with both "
        "scores standardised by their own random pairs (below). One colour scale in each row, "
        "which ends at the 99th percentile. Look for the darker map: that run scores most like "
        "the reference. Columns or rows that stand out are items or users whose level differs. "
        "Above, a run on another scale differs for that alone.",
        _canvas.heat_maps([(f"|score − score of {name}|", raw), ("the same, in deviations", free)]),
        data,
        numbers,
    )


# ---------------------------------------------------------------------- flows


def _of_flows(seed: int) -> list[Drawn]:
    """Figure 3."""
    pairs = _flow.flows(seed)
    told = (
        "Points move down a regularised transport cost to the target (biased), or down the same "
        "cost less half of each side's cost with itself (debiased). Arrows: the negative gradient "
        "at each point. Look at the last step: biased, the points end as a shrunken copy of the "
        "target; debiased, they cover it."
    )
    shapes = {
        1: ("fig3-flow-1d", "Figure 3: gradient flow on the line", _canvas.flow_on_the_line),
        2: ("fig3-flow-2d", "Figure 3: gradient flow in the plane", _canvas.flow_in_the_plane),
    }
    found = []
    for dimension, (name, title, draw) in shapes.items():
        pair = pairs[dimension]
        document = {
            "regularisation": pair.reg,
            "rate": _flow.RATE,
            "target": pair.target.tolist(),
            "snapshots": {
                loss: {
                    str(step): {
                        "points": run.points[step].tolist(),
                        "negative gradient": run.descent[step].tolist(),
                    }
                    for step in _flow.SHOWN
                }
                for loss, run in pair.runs.items()
            },
        }
        spread = pair.target.var(0).sum()
        numbers = [
            {"loss": loss, "variance at the end, to the target's": float(end / spread)}
            for loss, run in pair.runs.items()
            if (end := run.points[-1].var(0).sum()) is not None
        ]
        found.append(Drawn(name, title, told, draw(pair), document, numbers))
    losses = pl.concat(
        pl.DataFrame({"dimension": dimension, "loss": loss, "step": np.arange(len(run.losses)),
                      "value": run.losses, "exact transport cost": run.exact})
        for dimension, pair in pairs.items()
        for loss, run in pair.runs.items()
    )  # fmt: skip
    numbers = [
        {"flow": f"{dimension}-D, {loss}", "loss at the end": float(run.losses[-1]),
         "exact cost at the end": float(run.exact[-1])}
        for dimension, pair in pairs.items()
        for loss, run in pair.runs.items()
    ]  # fmt: skip
    return [
        *found,
        Drawn(
            "fig3-losses",
            "Figure 3: losses along the flow",
            "Above, the loss that each flow goes down; below, the transport cost to the target "
            "without regularisation, which both can be measured by. Look for the debiased loss "
            "falling to zero, and the biased one stopping above it, away from the target.",
            _canvas.flow_losses(pairs),
            losses,
            numbers,
        ),
    ]


# ---------------------------------------------------------------------- files


def _write(
    out: Path, drawn: Sequence[Drawn], runs: Sequence[_Run], summary: Mapping[str, Any]
) -> None:
    shown = []
    with write_folder_aside(out) as aside:
        for one in drawn:
            pictures = _canvas.files(one.figure)
            for kind, content in pictures.items():
                (aside / f"{one.name}.{kind}").write_bytes(content)
            if isinstance(one.data, pl.DataFrame):
                one.data.write_csv(aside / one.data_file)
            else:
                (aside / one.data_file).write_text(json.dumps(one.data))
            picture = base64.b64encode(pictures["svg"]).decode()
            shown.append({"drawn": one, "picture": f"data:image/svg+xml;base64,{picture}"})
        (aside / "figures.json").write_text(json.dumps(summary, indent=2) + "\n")
        (aside / "index.html").write_text(_page(shown, runs, summary), encoding="utf-8")
    written = {path.stem for path in out.iterdir()} & {one.name for one in drawn}
    for name in set(NAMES) - written:
        for kind in ("png", "svg", "csv", "json"):
            (out / f"{name}.{kind}").unlink(missing_ok=True)


def _page(
    shown: Sequence[Mapping[str, Any]], runs: Sequence[_Run], summary: Mapping[str, Any]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("figures.html").render(
        shown=shown,
        dataset=runs[0].fitted.dataset if runs else None,
        runs=[{"name": run.name, "label": run.label, "model": run.fitted.spec.name}
              for run in runs],
        notes=summary["notes"],
        seed=summary["seed"],
    )  # fmt: skip
