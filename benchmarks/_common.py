"""What several benchmarks share: the data of amazon-baby, tuned options, the machine, results."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
AMAZON_BABY = ROOT.parent / "shared" / "data" / "amazon-baby"


def read_rows(folder: Path, name: str = "train") -> Any:
    """Users and items of a split file such as train.csv, int64, (2, n)."""
    import numpy as np

    path = folder / f"{name}.csv"
    if not path.is_file():
        raise SystemExit(f"no {name}.csv in {folder}: name the folder with --data")
    return np.loadtxt(path, np.int64, delimiter=",", skiprows=1).T.copy()


def tuned(home: Path, data: str, name: str) -> dict[str, Any]:
    """Options that a search found.

    Args:
        home: folder with `configs/DATA/NAME.yaml`; without that file there are no options.
        data: name of the data set.
        name: a model, or "distill".
    """
    from modalign.core import settings

    path = home / "configs" / data / f"{name}.yaml"
    return settings.read_yaml(path) if path.exists() else {}


def over_seeds(runs: Sequence[dict[str, Any]], metrics: Sequence[str]) -> dict[str, float]:
    """Mean and standard deviation of each metric; the deviation of a single run is 0."""
    found = {}
    for metric in metrics:
        values = [run[metric] for run in runs]
        found[metric] = statistics.fmean(values)
        found[f"{metric} deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return found


def hardware(threads: int) -> dict[str, object]:
    """The machine on which numbers were measured."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": threads,
        "load_average": os.getloadavg()[0],
    }


def write(path: Path, document: dict[str, Any]) -> None:
    """Write results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
