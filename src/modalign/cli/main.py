"""`modalign`: the commands, and the exit code of every way to fail."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from modalign.cli import (
    data,
    describing,
    distilling,
    encoding,
    explaining,
    exporting,
    figures,
    mistakes,
    models,
    profiling,
    results,
    serving,
    sweeping,
    training,
)
from modalign.errors import InputError, ModalignError

ORDER = (
    "demo", "data", "encode", "describe", "models", "train", "distill", "sweep", "ablate",
    "evaluate", "compare", "profile", "recommend", "similar", "explain", "report", "figures",
    "export",
    "serve", "bench-serve", "serve-key", "serve-feedback",
)  # fmt: skip

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Encoders' libraries print beside the progress bars by default; a variable that is set wins."""


class _InOrder(TyperGroup):
    """Commands in the order of their use."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    name="modalign",
    cls=_InOrder,
    help="Multimodal recommendation: from a table of interactions and the items' pictures and "
    "texts to a trained, measured recommender.\n\n"
    "A first tour: `modalign demo --out demo`. Each command has its own `--help` with examples.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.app, name="data", rich_help_panel="Data")
encoding.register(app)
describing.register(app)
models.register(app)
training.register(app)
distilling.register(app)
sweeping.register(app)
results.register(app)
profiling.register(app)
explaining.register(app)
figures.register(app)
exporting.register(app)
serving.register(app)


def run() -> None:
    """Entry point. A user's mistake: one message, exit code 2. Ctrl-C: 130."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    sys.exit(_exit_code())


def _exit_code() -> int:
    """Run the command line; every failure ends in a message and an exit code."""
    console = Console(stderr=True)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                # Notices of libraries are for their callers; `python -W` shows them again.
                warnings.simplefilter("ignore")
            return int(app(standalone_mode=False, prog_name="modalign") or 0)
    except mistakes.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return 2
        mistakes.show(console, mistakes.from_usage(error))
    except InputError as error:
        mistakes.show(console, error)
    except ModalignError as error:
        console.print("[bold red]Error:[/] ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        console.print("stopped")
        return 130
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        mistakes.show(console, mistakes.from_system(error))
    return 2


if __name__ == "__main__":
    run()
