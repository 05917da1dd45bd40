"""Many runs at once: a plan of options and seeds, a job that makes one run, a table at the end.

plan.py         which options, which seeds: a grid, a drawn part of it, or named sets
job.py          what one run does: `FitJob` trains a model
runner.py       plan + job -> run folders; what was finished stays, what was interrupted goes on
table.py        what came out, how far a sweep is, means and deviations over seeds
figures.py      curves and heat maps as PNG
ablation.py     the variants of a model against the whole of it, with paired tests
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modalign.sweeps.ablation import Ablation, ablate
    from modalign.sweeps.job import FitJob, Job
    from modalign.sweeps.plan import SweepPlan
    from modalign.sweeps.runner import run, sweep
    from modalign.sweeps.table import Progress, Sweep

_HOMES = {
    "Ablation": "ablation",
    "FitJob": "job",
    "Job": "job",
    "Progress": "table",
    "Sweep": "table",
    "SweepPlan": "plan",
    "ablate": "ablation",
    "run": "runner",
    "sweep": "runner",
}

__all__ = ["Ablation", "FitJob", "Job", "Progress", "Sweep", "SweepPlan", "ablate", "run", "sweep"]


def __getattr__(name: str) -> Any:
    # On first use: a worker process imports what its own job needs and no more.
    if name not in _HOMES:
        raise AttributeError(f"module 'modalign.sweeps' has no attribute {name!r}")
    return getattr(import_module(f"modalign.sweeps.{_HOMES[name]}"), name)
