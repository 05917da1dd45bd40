"""Every exception that modalign raises on purpose.

    ModalignError
    ├── InputError            a user's mistake; the command line exits with code 2
    │   ├── DataError         a file, table or feature matrix is not what it should be
    │   ├── ConfigError       an option is unknown or out of its bounds
    │   ├── UnknownName       no model, metric, encoder or modality has that name
    │   ├── RunError          a run folder is missing, half written or of other data
    │   └── ArtifactError     an artifact to serve is missing, damaged or of another schema
    └── TrainingError         training itself failed (a loss became NaN)

An `InputError` always states three facts: what was expected, what came, and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModalignError(Exception):
    """Base of all errors raised by modalign on purpose."""


class InputError(ModalignError):
    """A user's mistake, told in three facts.

    Args:
        expected: what modalign needed.
        got: what came instead, with file, line, column or id where there is one.
        fix: what the user can do about it.
    """

    def __init__(self, expected: str, got: str, fix: str) -> None:
        self.expected, self.got, self.fix = expected, got, fix
        super().__init__(f"expected {expected}; got {got}. To mend it: {fix}")


class DataError(InputError):
    """A file, table or feature matrix is not what it should be."""


class ConfigError(InputError):
    """An option is unknown, of the wrong type or out of its bounds."""


class RunError(InputError):
    """A run folder is missing, half written, or belongs to other data."""


class ArtifactError(InputError):
    """A folder to serve is missing, damaged, or of another schema."""


class UnknownName(InputError):
    """No thing of this kind has this name; the nearest existing name is suggested."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        fix = f"did you mean {close[0]!r}?" if close else "choose one of the names listed"
        article = "an" if kind[0] in "aeio" else "a"
        super().__init__(f"{article} {kind}, one of {', '.join(names)}", repr(name), fix)


class TrainingError(ModalignError):
    """Training failed in a way that no option could have told beforehand."""
