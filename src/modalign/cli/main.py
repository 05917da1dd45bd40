"""`modalign`: the commands, and how mistakes are told."""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console

from modalign.cli import data, models, results, training
from modalign.errors import InputError, ModalignError

app = typer.Typer(
    name="modalign",
    help="Multimodal recommendation: from a table of interactions and the items' pictures and "
    "texts to a trained, measured recommender.\n\n"
    "A first tour:  modalign demo --out demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.app, name="data")
data.register(app)
models.register(app)
training.register(app)
results.register(app)


def run() -> None:
    """Entry point. A user's mistake: one message, exit code 2. Ctrl-C: 130."""
    # Models that are installed are used as they are; nothing is looked up on a hub unasked.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    console = Console(stderr=True)
    try:
        app()
    except InputError as error:
        console.print("[bold red]Error[/]: ", end="")
        console.print(f"expected {error.expected}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"       got {error.got}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"   to mend it: {error.fix}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except ModalignError as error:
        console.print("[bold red]Error[/]: ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)


if __name__ == "__main__":
    run()
