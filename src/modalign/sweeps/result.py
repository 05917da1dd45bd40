"""A sweep as it stands: how far it is, and what came out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modalign.sweeps.plan import SweepPlan
from modalign.sweeps.table import SweepRow, SweepRun


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Attributes:
        done: runs that came to their end, those found finished included.
        total: runs of the plan.
        last: the run that just ended; None at the start.
        best: the finished run with the highest validation metric, or None.
        seconds_left: at the pace so far; None before a run has ended.
    """

    done: int
    total: int
    last: SweepRun | None
    best: SweepRun | None
    seconds_left: float | None


@dataclass(frozen=True)
class Sweep:
    """What came out of a plan.

    Attributes:
        folder: of the sweep.
        plan: what was run.
        metric: of validation, that the rows are sorted by.
        rows: a table over seeds, best first.
        runs: every run, by seed, then in the order of the plan.
    """

    folder: Path
    plan: SweepPlan
    metric: str
    rows: list[SweepRow]
    runs: list[SweepRun]

    @property
    def best(self) -> SweepRow:
        """The set with the highest mean of the metric on validation."""
        return self.rows[0]

    @property
    def failed(self) -> list[SweepRun]:
        """Runs without a result."""
        return [run for run in self.runs if run.results is None]

    def to_dict(self) -> dict[str, Any]:
        """As `results.json` has it."""
        runs = [{**asdict(run), "folder": self._place(run.folder)} for run in self.runs]
        return {
            "metric": self.metric,
            "grid": {key: list(values) for key, values in self.plan.grid.items()},
            "seeds": list(self.plan.seeds),
            "best": self.best.name,
            "table": [asdict(row) for row in self.rows],
            "runs": runs,
        }

    def _place(self, folder: Path) -> str:
        return folder.relative_to(self.folder).as_posix()
