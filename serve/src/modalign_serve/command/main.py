"""`modalign-serve`: the command of the server without torch."""

from __future__ import annotations

import sys

import typer

from modalign_serve.command import commands, mistakes, terminal

app = typer.Typer(
    name="modalign-serve",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
commands.register(app, commands.Names("modalign-serve", "run", "bench", "key", "feedback"))
app.callback(
    help="Serve artifacts that `modalign export` wrote: lists, similar items, feedback and a page."
)(terminal.program_options)


def run() -> None:
    """Entry point; see `modalign_serve.command.mistakes.run` for the exit codes."""
    sys.exit(mistakes.run(app, "modalign-serve"))


if __name__ == "__main__":
    run()
