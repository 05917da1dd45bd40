"""How a command line ends: the exit code, and errors as what was expected, what came, the fix."""

from __future__ import annotations

import difflib
import errno
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modalign_serve.command.terminal import err, printable, say
from modalign_serve.errors import ConfigError, DataError, InputError, ModalignError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# The parser's own error class has no public name; every bad parameter is one of it.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def run(app: typer.Typer, name: str) -> int:
    """Run a command line and print its errors; the exit code.

    0 for success, 2 for a user's mistake, 1 for any other error that is raised on purpose, 130
    after Ctrl-C.

    Args:
        app: the commands.
        name: of the program, in messages.
    """
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                # Warnings of libraries are for developers; `python -W` shows them again.
                warnings.simplefilter("ignore")
            return int(_stoppable(app)(standalone_mode=False, prog_name=name) or 0)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return 2
        show(err, from_usage(error))
    except InputError as error:
        show(err, error)
    except ModalignError as error:
        err.print("[bold red]Error:[/] ", end="")
        err.print(printable(str(error), keep="\n"), markup=False, highlight=False, soft_wrap=True)
        return 1
    except (_Stopped, KeyboardInterrupt, typer.Abort) as stopped:
        say("; ".join(["stopped", *notes_of(stopped.__cause__ or stopped)]))
        return 130
    except BrokenPipeError:
        # The reader (`head`, a pager) has closed the pipe; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        show(err, from_system(error))
    return 2


class _Stopped(Exception):
    """Ctrl-C in a command."""


def _stoppable(app: typer.Typer) -> Any:
    """The command, with Ctrl-C as an error of ours: the parser would end without a word."""
    command: Any = typer.main.get_command(app)
    invoke = command.invoke

    def stoppable(context: Any) -> Any:
        try:
            return invoke(context)
        except KeyboardInterrupt as error:
            raise _Stopped from error

    command.invoke = stoppable
    return command


def show(console: Console, error: InputError) -> None:
    """Print the three facts; at a terminal with a hanging indent, else one line each."""
    said = (("Error: expected", error.expected), ("got", error.got), ("To fix:", error.fix))
    facts = [(label, printable(fact, keep="\n\t")) for label, fact in said]
    if not console.is_terminal:
        for label, fact in facts:
            console.print(f"{label:>15} {fact}", markup=False, highlight=False, soft_wrap=True)
        return
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for (label, fact), style in zip(facts, ("bold red", "bold", "bold green"), strict=True):
        grid.add_row(Text(label, style), Text(fact))
    console.print(grid)


def from_usage(error: Any) -> InputError:
    """A mistake in the command line itself (option, argument, command), in three facts."""
    context = error.ctx
    command = context.command_path if context is not None else "the program"
    parameter = getattr(error, "param", None)
    if parameter is not None:
        return _parameter(error, parameter, command)
    option = getattr(error, "option_name", None)
    if option is not None and context is not None:
        return _option(error, str(option), context)
    commands = getattr(context.command, "commands", None) if context is not None else None
    if commands:
        return _command(error, context, commands)
    usage = "" if context is None else context.get_usage()
    return ConfigError(
        " ".join(usage.split()).removeprefix("Usage: ")
        or "options and values as --help lists them",
        _sentence(error.format_message()),
        f"see {command} --help",
    )


def from_system(error: OSError) -> InputError:
    """A file that cannot be read or written, in three facts; notes of the error join the fix."""
    where = error.filename or "a file"
    got = f"{where}: {error.strerror or error}"
    if error.errno in FULL:
        expected, fix = "enough free space to write", "free some space, or choose another disk"
    elif error.errno in FORBIDDEN:
        expected = "a file or folder that may be read and written"
        fix = "choose another folder, or change its permissions"
    else:
        expected = "a file or folder that can be read or written"
        fix = "check the path, its permissions and the space left"
    return DataError(expected, got, "; ".join([fix, *notes_of(error)]))


def notes_of(error: BaseException | None) -> list[str]:
    """What was added to an exception on its way: what is kept, and how to go on."""
    return list(getattr(error, "__notes__", ()))


def _parameter(error: Any, parameter: Any, command: str) -> InputError:
    name = max(parameter.opts, key=len)
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name or name).upper()
    if type(error).__name__ == "MissingParameter":
        help_text = getattr(parameter, "help", None) or "a value"
        expected = f"{parameter.param_type_name} {name} of {command} ({help_text.rstrip('.')})"
        return ConfigError(expected, "none", f"see {command} --help")
    given = _given(parameter.opts)
    got = _sentence(error.message) if given is None else f"{given!r}: {_sentence(error.message)}"
    return ConfigError(f"a valid value for {name} of {command}", got, f"see {command} --help")


def _option(error: Any, option: str, context: Any) -> InputError:
    command = context.command_path
    known = sorted(
        name
        for parameter in context.command.params
        if parameter.param_type_name == "option"
        for name in parameter.opts
    )
    if option in known:
        got = _sentence(error.format_message())
        return ConfigError(f"a value for {option} of {command}", got, f"see {command} --help")
    sets = "--set" in known
    close = difflib.get_close_matches(option, known, n=1, cutoff=0.75 if sets else 0.5)
    if close:
        fix = f"did you mean {close[0]!r}?"
    elif sets and option.startswith("--"):
        name = option.lstrip("-").partition("=")[0].replace("-", "_")
        fix = f"give options of a model as --set {name}=VALUE; {command} --help lists the others"
    else:
        fix = f"see {command} --help"
    return ConfigError(f"an option of {command}: {', '.join(known) or 'none'}", repr(option), fix)


def _given(names: Sequence[str]) -> str | None:
    """The value given for an option on the command line, for messages."""
    words = sys.argv[1:]
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else " ".join(words[place + 1 : place + 2])
    return None


def _command(error: Any, context: Any, commands: Mapping[str, Any]) -> InputError:
    known = context.command.list_commands(context)
    said = str(error.message)
    wanted = said.split("'")[1] if said.count("'") >= 2 else said
    close = difflib.get_close_matches(wanted, list(commands), n=1, cutoff=0.5)
    got = repr(wanted) if "'" in said else _sentence(said)
    fix = f"did you mean {close[0]!r}?" if close else f"see {context.command_path} --help"
    return ConfigError(f"a command of {context.command_path}: {', '.join(known)}", got, fix)


def _sentence(text: str) -> str:
    """The parser's message, made part of a sentence."""
    text = " ".join(text.split()).rstrip(".").removeprefix("Got ")
    return text[:1].lower() + text[1:]
