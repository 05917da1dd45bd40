"""The exceptions that `modalign_serve` raises on purpose, and that `modalign` builds on.

    ModalignError
    └── InputError            a user's mistake; a command exits with code 2
        ├── DataError         a file, table or feature matrix is invalid
        ├── ConfigError       an option is unknown or out of its bounds
        ├── UnknownName       no model, column, metric or item has that name
        └── ArtifactError     an artifact to serve is missing, damaged or of another schema
    Failure                   an HTTP answer with an error

An `InputError` always states three facts: what was expected, what came, and how to fix it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class ModalignError(Exception):
    """Base of all errors that modalign raises on purpose."""


class InputError(ModalignError):
    """A user's mistake, stated in three facts.

    Args:
        expected: what modalign needed.
        got: what it got instead, with file, line, column or id where there is one.
        fix: what the user can do about it.
    """

    def __init__(self, expected: str, got: str, fix: str) -> None:
        self.expected, self.got, self.fix = expected, got, fix
        super().__init__(f"Expected {expected}, got {got}. To fix: {fix}")


class DataError(InputError):
    """A file, table or feature matrix is invalid."""


class ConfigError(InputError):
    """An option is unknown, of the wrong type or out of its bounds."""


class ArtifactError(InputError):
    """A folder to serve is missing, damaged, or of another schema."""


class TooSlow(ModalignError):
    """An answer was not ready within its time."""


class UnknownName(InputError):
    """Nothing of this kind has this name; the most similar existing name is suggested.

    Args:
        kind: of thing, in the singular.
        name: that was given.
        known: existing names.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        fix = f"did you mean {close[0]!r}?" if close else "choose one of the names listed"
        article = "an" if kind[0] in "aeio" else "a"
        super().__init__(f"{article} {kind}, one of {', '.join(names)}", repr(name), fix)


class Failure(Exception):
    """An HTTP answer with an error: status, the facts of an `InputError`, further headers.

    Args:
        status: HTTP status.
        expected: what the service needed.
        got: what it got instead, with the field or id where there is one.
        fix: what the caller can do about it.
        headers: added to the answer, such as Retry-After.

    Example:
        >>> str(Failure(404, "a known user", "'x'", "send items instead"))
        "404: expected a known user, got 'x'. To fix: send items instead"
    """

    def __init__(
        self,
        status: int,
        expected: str,
        got: str,
        fix: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.expected, self.got, self.fix = status, expected, got, fix
        self.headers = dict(headers or {})
        super().__init__(f"{status}: expected {expected}, got {got}. To fix: {fix}")


def not_installed(package: str, purpose: str, extra: str) -> tuple[str, str, str]:
    """The three facts of an error about a package that an extra of `modalign-serve` installs.

    Args:
        package: its name.
        purpose: what it is needed for.
        extra: that installs it.

    Example:
        >>> print(ConfigError(*not_installed("pyarrow", "to write Parquet", "parquet")))
        Expected the package pyarrow, to write Parquet, got no such package. \
To fix: pip install "modalign-serve[parquet]"
    """
    fix = f'pip install "modalign-serve[{extra}]"'
    return f"the package {package}, {purpose}", "no such package", fix


def unavailable(got: str, fix: str, seconds: int = 1) -> Failure:
    """A Failure of 503: the service cannot answer now, but may in some seconds.

    Args:
        got: why it cannot.
        fix: what the caller can do.
        seconds: after which to try again.
    """
    return Failure(503, "a service that can answer", got, fix, {"retry-after": str(seconds)})
