"""`write_figures`: load runs, draw every figure that they allow, and write a folder with a page."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from modalign.core.files import write_folder_aside
from modalign.errors import ConfigError, DataError, RunError
from modalign.experiments.run_folder import read_run
from modalign.report import html, style
from modalign.report.paper_figures import measures
from modalign.report.paper_figures.figure import FIGURES, NEEDS, Drawn, Material, Subject
from modalign.report.side_by_side import load_runs


def write_figures(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    pairs: int = 20_000,
    seed: int = 1,
    data: str | Path | None = None,
) -> dict[str, Any]:
    """Draw all figures that the runs allow: PNG, SVG and data of each, and `index.html`.

    Args:
        runs: run folders on the same data; the others are compared with the first. Without runs,
            only the figures that need none are drawn.
        out: folder; figures of an earlier call that are not drawn again are removed from it.
        pairs: maximum number of observed pairs, and of random pairs, to score.
        seed: seed of the sample and of the flows' points.
        data: the prepared data, if they have moved since the runs were trained.

    Returns:
        `figures.json`: for each figure its files and a summary in numbers; what was left out.

    Raises:
        RunError: a folder is not a finished run, is given twice, or is of other data.
        DataError: no test interaction can be scored, or `out` cannot be a folder.
        ConfigError: fewer than one pair.
    """
    folders, out = [Path(run) for run in runs], Path(out)
    _check(folders, out, pairs)
    loaded = load_runs(folders, data)
    subjects = [Subject(n, fitted, measures.vectors(fitted)) for n, fitted in loaded.items()]
    material = Material(subjects, seed, pairs)
    _note_masks(material)
    drawn = {name: made for name, draw in FIGURES.items() if (made := draw(material)) is not None}
    if len(subjects) == 1:
        material.notes.append("Figures that compare runs are left out: there is only one run.")
    summary = {
        "runs": {run.name: str(run.fitted.folder) for run in subjects},
        "reference": subjects[0].name if subjects else None,
        "data": material.dataset.fingerprint if subjects else None,
        "seed": seed,
        "notes": material.notes,
        "not drawn": {name: NEEDS[name] for name in FIGURES if name not in drawn},
        "figures": [
            {
                "name": name,
                "title": one.title,
                "files": [f"{name}.png", f"{name}.svg", _data_file(name, one)],
                "numbers": one.numbers,
            }
            for name, one in drawn.items()
        ],
    }
    _write(out, drawn, material, summary)
    return summary


def _check(folders: Sequence[Path], out: Path, pairs: int) -> None:
    if pairs < 1:
        raise ConfigError("at least 1 pair", str(pairs), "ask for 20000")
    if out.exists() and not out.is_dir():
        raise DataError("a folder to write to", f"the file {out}", "choose another name")
    html.check_above(out)
    seen: set[Path] = set()
    for folder in folders:
        config, _ = read_run(folder)
        if folder.resolve() in seen:
            raise RunError("every run once", f"{folder} twice", "remove one of them")
        seen.add(folder.resolve())
        first, _ = read_run(folders[0])
        if config["fingerprint"] != first["fingerprint"]:
            raise RunError(
                f"runs on the data of {folders[0]} (fingerprint {first['fingerprint']})",
                f"{folder}, trained on other data (fingerprint {config['fingerprint']})",
                "draw runs on one data set and split",
            )


def _note_masks(material: Material) -> None:
    masks = {str(run.fitted.results["mask"]) for run in material.runs}
    if len(masks) > 1:
        material.notes.append(
            "Recall in legends is not comparable: the runs were measured with the masks "
            f"{' and '.join(sorted(masks))}."
        )


def _data_file(name: str, drawn: Drawn) -> str:
    return f"{name}.{'csv' if isinstance(drawn.data, pl.DataFrame) else 'json'}"


def _write(
    out: Path, drawn: Mapping[str, Drawn], material: Material, summary: Mapping[str, Any]
) -> None:
    shown = []
    with write_folder_aside(out) as aside:
        for name, one in drawn.items():
            pictures = style.files(one.figure)
            for kind, content in pictures.items():
                (aside / f"{name}.{kind}").write_bytes(content)
            data = aside / _data_file(name, one)
            if isinstance(one.data, pl.DataFrame):
                one.data.write_csv(data)
            else:
                data.write_text(json.dumps(one.data))
            picture = base64.b64encode(pictures["svg"]).decode()
            shown.append(
                {
                    "name": name,
                    "drawn": one,
                    "data_file": data.name,
                    "picture": f"data:image/svg+xml;base64,{picture}",
                }
            )
        (aside / "figures.json").write_text(json.dumps(summary, indent=2) + "\n")
        page = html.render(
            "figures.html",
            shown=shown,
            dataset=material.dataset if material.runs else None,
            runs=[
                {"name": run.name, "label": run.label, "model": run.fitted.spec.name}
                for run in material.runs
            ],
            notes=summary["notes"],
            missing=summary["not drawn"] if material.runs else {},
            seed=summary["seed"],
        )
        (aside / "index.html").write_text(page, encoding="utf-8")
    for name in FIGURES.keys() - drawn.keys():
        for kind in ("png", "svg", "csv", "json"):
            (out / f"{name}.{kind}").unlink(missing_ok=True)
