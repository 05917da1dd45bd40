"""A teacher into a small student.

plan.py      variants, stages, options
source.py    what teaches, as scores and vectors
teachers.py  sources from fitted models, run folders and artifacts, and several as one
task.py      the losses, as a `Task` of the one training loop
run.py       `distill`: the stages, one after the other
sweep.py     many distillations, and their ablation
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modalign.distillation.run import Distilled, distill
    from modalign.distillation.sweep import DistillJob, ablate_distillation, sweep_distillation

_HOMES = {
    "DistillJob": "sweep",
    "Distilled": "run",
    "ablate_distillation": "sweep",
    "distill": "run",
    "sweep_distillation": "sweep",
}

__all__ = ["DistillJob", "Distilled", "ablate_distillation", "distill", "sweep_distillation"]


def __getattr__(name: str) -> Any:
    # On first use: the command line asks for the names of options without torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'modalign.distillation' has no attribute {name!r}")
    return getattr(import_module(f"modalign.distillation.{_HOMES[name]}"), name)
