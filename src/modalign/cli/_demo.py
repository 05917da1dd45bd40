"""The main job on the embedded catalogue: a synthetic shop from pictures to a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalign.data import synthetic
from modalign.data.dataset import Dataset
from modalign.data.prepare import prepare
from modalign.distillation.run import distill
from modalign.encoding.encode import encodable, encode
from modalign.evaluate.compare import Comparison
from modalign.experiments.cost import Profile, profile
from modalign.experiments.fit import fit
from modalign.experiments.fitted import FittedModel
from modalign.experiments.options import RunOptions
from modalign.report.page import write_report
from modalign.report.side_by_side import compare_runs
from modalign.train.callbacks import Callback

RUNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "lightgcn": ("lightgcn", {}),
    "cm3": ("cm3", {}),
    "cm3-only-image": ("cm3", {"modalities": ("image",)}),
    "cm3-only-text": ("cm3", {"modalities": ("text",)}),
}
"""Trained runs of the demo: LightGCN sees only ids; the last two, one modality each."""

TEACHER = "cm3"
COSTED = ("lightgcn", TEACHER, "tarec/assistant", "tarec/student")
"""Runs whose time, memory and parameters are measured."""


@dataclass(frozen=True)
class Demo:
    """Results of the demo.

    Attributes:
        data: the prepared shop.
        fitted: the trained models by run name, the distilled ones last.
        comparison: all models, with paired tests.
        cost: time, memory and parameters of `COSTED`.
        report: the HTML page.
    """

    data: Dataset
    fitted: Mapping[str, FittedModel]
    comparison: Comparison
    cost: Profile
    report: Path


def run(
    folder: Path,
    seed: int = 1,
    *,
    stage: Callable[[str], None] = lambda text: None,
    encoding: Callable[[str], Callable[[int, int], None]] = lambda name: lambda done, total: None,
    callbacks: Callable[[str], Sequence[Callback]] = lambda name: (),
) -> Demo:
    """Draw the shop, prepare and encode it, train, distil, compare, report.

    Args:
        folder: everything is written here; an earlier demo is replaced.
        seed: seed of the shop, the split and all trainings.
        stage: called with a description of each stage when it starts.
        encoding: for a modality, returns a function that is called with the number of items done
            and the total.
        callbacks: for a run, returns callbacks that are called after each epoch.
    """
    stage("drawing a synthetic shop")
    raw = synthetic.write(folder / "shop", seed=seed)
    data = prepare(raw, folder / "data", split="ratio", seed=seed, overwrite=True)
    for name in encodable(data):
        stage(f"encoding {name}")
        data, _ = encode(data, name, progress=encoding(name))
    fitted: dict[str, FittedModel] = {}
    for name, (model, options) in RUNS.items():
        stage(f"training {name}")
        out = folder / "runs" / name
        fitted[name] = fit(
            data,
            model,
            seed=seed,
            out=out,
            overwrite=True,
            callbacks=callbacks(name),
            progress=False,
            **options,
        )
    stage(f"distilling {TEACHER}: teacher, assistant, student")
    distilled = distill(
        folder / "runs" / TEACHER,
        data,
        seed=seed,
        out=folder / "runs" / "tarec",
        run=RunOptions(overwrite=True),
        progress=callbacks,
    )
    for one in (distilled.assistant, distilled.student):
        assert one is not None  # the full variant has both
        fitted[f"tarec/{one.results['distillation']['stage']}"] = one
    folders = [folder / "runs" / name for name in fitted]
    stage("comparing")
    comparison = compare_runs(folders)
    stage("timing")
    cost = profile([folder / "runs" / name for name in COSTED], repeats=100)
    stage("writing the report")
    return Demo(data, fitted, comparison, cost, write_report(folders, folder / "report.html"))
