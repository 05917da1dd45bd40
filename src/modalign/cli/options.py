"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modalign.errors import ConfigError, UnknownName
from modalign_serve.command import terminal

if TYPE_CHECKING:
    from modalign.experiments.options import RunOptions

MASKS = ("strict", "train")
PRECISIONS = ("32-true", "bf16-mixed")

Json = terminal.Json
Data = Annotated[
    Path | None, typer.Option(help="The prepared data, if they have moved since the training.")
]
Device = Annotated[str, typer.Option(help="auto (CUDA if available), cpu, cuda, cuda:N.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all randomness.")]
Cutoffs = Annotated[str, typer.Option("--k", help="Cut-offs K of the metrics, with commas.")]
HowMany = Annotated[int, typer.Option("-k", "--k", min=1, help="Number of items to list.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="An option as key=value; repeat it for more.")
]


@dataclass(frozen=True)
class RunFlags:
    """How runs are made and measured, in every command that makes runs."""

    mask: Annotated[
        str,
        typer.Option(
            help="strict: training and validation items are left out of the test ranking; "
            "train: training items only, as published numbers do."
        ),
    ] = "strict"
    k: Cutoffs = "5,10,20,50"
    device: Device = "auto"
    precision: Annotated[
        str, typer.Option(help="32-true, or bf16-mixed: faster on a GPU, a little less exact.")
    ] = "32-true"

    def options(self, **more: Any) -> RunOptions:
        """As a `RunOptions`, with further fields.

        Raises:
            UnknownName, ConfigError: no such mask, precision or device, or bad cut-offs.
        """
        from modalign.core import devices
        from modalign.experiments.options import RunOptions

        choose("mask", self.mask, MASKS)
        choose("precision", self.precision, PRECISIONS)
        ks = parse_ks(self.k)
        devices.resolve(self.device)
        return RunOptions(
            mask=self.mask,  # type: ignore[arg-type]
            ks=ks,
            device=self.device,
            precision=self.precision,  # type: ignore[arg-type]
            progress=False,  # commands show it on their own console, see `render.training`
            **more,
        )


@dataclass(frozen=True)
class AgainFlags:
    """What happens where the folder already holds a run."""

    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run exactly where it stopped.")
    ] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run.")] = False

    def options(self) -> dict[str, bool]:
        """The fields of `RunOptions` of the same names.

        Raises:
            ConfigError: both are set.
        """
        if self.resume and self.overwrite:
            raise ConfigError(
                "--resume or --overwrite", "both", "drop one: continue the run, or replace it"
            )
        return {"resume": self.resume, "overwrite": self.overwrite}


RUN_FIELDS = frozenset(
    [
        "out", "mask", "ks", "device", "precision", "callbacks", "tensorboard", "resume",
        "overwrite", "progress",
    ]
)  # fmt: skip
"""Fields of `RunOptions`, which no model's option may be called; a test holds the two equal."""


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """Check a name.

    Args:
        kind: what it names, for the message.
        name: to check.
        known: the existing names.

    Returns:
        The name.

    Raises:
        UnknownName: it is not among them; the nearest is suggested.
    """
    names = list(known)
    if name not in names:
        raise UnknownName(kind, name, names)
    return name


def parse_ks(text: str) -> list[int]:
    """Cut-offs from a text such as "10,20".

    Raises:
        ConfigError: not positive whole numbers.

    Example:
        >>> parse_ks("10,20")
        [10, 20]
    """
    fix = "write positive whole numbers with commas: --k 10,20"
    try:
        ks = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise ConfigError("cut-offs such as 10,20", repr(text), fix) from error
    if ks[0] < 1:
        raise ConfigError("cut-offs of at least 1", repr(text), fix)
    return ks


def parse_weights(text: str | None) -> list[float] | None:
    """Weights of teachers from a text such as "0.6,0.4"; `distill` checks their number.

    Raises:
        ConfigError: not numbers.

    Example:
        >>> parse_weights("0.6,0.4")
        [0.6, 0.4]
    """
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            "numbers such as 0.6,0.4", repr(text), "write one for each --teacher: --weights 0.6,0.4"
        ) from error


def own_options(sets: list[str] | None, taken: Iterable[str], owner: str) -> dict[str, Any]:
    """`--set key=value` texts as options of `owner`.

    Args:
        sets: as they were written.
        taken: names that have their own option on the command line.
        owner: whose options `--set` is for ("the model").

    Raises:
        ConfigError: not key=value, or a name that is set elsewhere.
    """
    from modalign.core.settings import parse_assignments

    found = parse_assignments(sets or [])
    refuse(found, taken, owner)
    return found


def refuse(options: Iterable[str], taken: Iterable[str], owner: str) -> None:
    """Reject names under `--set` that have their own option on the command line.

    Args:
        options: names under `--set`.
        taken: names with their own option.
        owner: whose options `--set` is for.

    Raises:
        ConfigError: one of them has.
    """
    names = set(taken)
    for key in options:
        if key in names:
            flag = {"columns": "column", "ks": "k", "modality": "modality"}.get(key, key)
            raise ConfigError(
                f"an option of {owner} with --set", repr(key), f"write --{flag.replace('_', '-')}"
            )
