"""`modalign serve` and its companions: the commands of `modalign_serve` under their names here."""

from __future__ import annotations

import typer

from modalign_serve.command import commands

NAMES = commands.Names("modalign", "serve", "bench-serve", "serve-key", "serve-feedback")


def register(root: typer.Typer) -> None:
    """Add the commands to the top level."""
    commands.register(root, NAMES, "Service")
