"""Every exception that modalign raises on purpose.

    ModalignError
    ├── InputError            a user's mistake; the command line exits with code 2
    │   ├── DataError         a file, table or feature matrix is not what it should be
    │   ├── ConfigError       an option is unknown or out of its bounds
    │   ├── UnknownName       no model, metric, encoder or modality has that name
    │   ├── RunError          a run folder is missing, half written or of other data
    │   └── ArtifactError     an artifact to serve is missing, damaged or of another schema
    └── TrainingError         training itself failed (a loss became NaN)

An `InputError` always states three facts: what was expected, what came, and how to fix it. The
first five are those of `modalign_serve`, so that one `except` catches both packages' errors.
"""

from __future__ import annotations

from modalign_serve.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    InputError,
    ModalignError,
    UnknownName,
)

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "InputError",
    "ModalignError",
    "RunError",
    "TrainingError",
    "UnknownName",
]


class RunError(InputError):
    """A run folder is missing, half written, or belongs to other data."""


class TrainingError(ModalignError):
    """Training failed in a way that no check of the options can foresee."""
