"""Many runs at once: a plan of options and seeds, a job that makes one run, a table at the end.

plan.py         which options, which seeds: a grid, a drawn part of it, or named sets
job.py          what one run does: `FitJob` trains a model
distill_job.py  `DistillJob` teaches a student; its sweep and its ablation
pool.py         runs in processes of their own; one that is killed is started again
runner.py       plan + job -> run folders; what was finished stays, what was interrupted goes on
table.py        means and deviations over seeds
figures.py      curves and heat maps as PNG
ablation.py     the variants of a model against the whole of it, with paired tests
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modalign.distillation.sweep import DistillJob, ablate_distillation, sweep_distillation
    from modalign.sweeps.ablation import Ablation, ablate
    from modalign.sweeps.job import FitJob, Job
    from modalign.sweeps.plan import Plan
    from modalign.sweeps.runner import Progress, Sweep, run, sweep

_HOMES = {
    "Ablation": "ablation",
    "DistillJob": "distill_job",
    "FitJob": "job",
    "Job": "job",
    "Plan": "plan",
    "Progress": "runner",
    "Sweep": "runner",
    "ablate": "ablation",
    "ablate_distillation": "distill_job",
    "run": "runner",
    "sweep": "runner",
    "sweep_distillation": "distill_job",
}

__all__ = [
    "Ablation",
    "DistillJob",
    "FitJob",
    "Job",
    "Plan",
    "Progress",
    "Sweep",
    "ablate",
    "ablate_distillation",
    "run",
    "sweep",
    "sweep_distillation",
]


def __getattr__(name: str) -> Any:
    # On first use: a process of the pool imports what its own job needs and no more.
    if name not in _HOMES:
        raise AttributeError(f"module 'modalign.sweeps' has no attribute {name!r}")
    return getattr(import_module(f"modalign.sweeps.{_HOMES[name]}"), name)
