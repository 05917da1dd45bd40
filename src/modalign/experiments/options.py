"""Where and how a run is made: the options that are no model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from modalign.core.devices import Precision
from modalign.data.user_history import Mask
from modalign.evaluate.protocol import KS
from modalign.train.callbacks import Callback, Showing


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is made.

    Attributes:
        out: run folder to write; None writes nothing.
        mask: "strict" hides training and validation items in the test ranking, "train" hides
            training items only, as published numbers do.
        ks: cut-offs of the metrics.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "32-true" or "bf16-mixed".
        callbacks: called at the start, after every epoch and at the end of training.
        tensorboard: also write event files for TensorBoard, into `out/tensorboard`.
        resume: continue an interrupted run in `out`.
        overwrite: replace a finished or interrupted run in `out`.
        progress: "auto" shows a bar in a notebook or at a terminal; True also prints lines
            elsewhere; False shows nothing; "bar" and "lines" choose.
    """

    out: str | Path | None = None
    mask: Mask = "strict"
    ks: Sequence[int] = KS
    device: str = "auto"
    precision: Precision = "32-true"
    callbacks: Sequence[Callback] = ()
    tensorboard: bool = False
    resume: bool = False
    overwrite: bool = False
    progress: Showing = "auto"

    @property
    def folder(self) -> Path | None:
        """`out` as a path."""
        return None if self.out is None else Path(self.out)

    @classmethod
    def split(
        cls, run: RunOptions | None, options: Mapping[str, Any]
    ) -> tuple[RunOptions, dict[str, Any]]:
        """Separate the run's options from a model's, where both come as keywords.

        Args:
            run: the options to start from; None takes the defaults.
            options: keywords of either kind.

        Returns:
            The run's options, and the remaining keywords.

        Example:
            >>> run, rest = RunOptions.split(None, {"mask": "train", "embedding_size": 64})
            >>> run.mask, rest
            ('train', {'embedding_size': 64})
        """
        names = {field.name for field in fields(cls)}
        mine = {name: value for name, value in options.items() if name in names}
        rest = {name: value for name, value in options.items() if name not in names}
        return replace(run or cls(), **mine), rest
