"""What describes users: the protocols of providers and language models, and the table of providers.

A provider gives a text (`PreferenceTextProvider`) or a vector (`PreferenceVectorProvider`) for
each user. A module adds one with `PROVIDERS.register(name, factory)`; modules of other packages are
found by entry points of the group `modalign.preferences`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from modalign.core.registry import Registry
from modalign.core.settings import DEFAULT_SEED
from modalign.preferences.side import TrainingSide

MAX_TOKENS = 160
"""Maximum length of an answer of a language model in tokens, unless another is given."""

TextSource = Literal["model", "cache", "template", "file"]
ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class FailedUser:
    """A user whose question got no answer.

    Attributes:
        user_id: the user.
        reason: why there is no answer, in words.
    """

    user_id: str
    reason: str


@dataclass(frozen=True)
class Descriptions:
    """A text for each user who has one.

    Attributes:
        texts: by row of user; None where there is none.
        sources: by row, where the text comes from; None where there is none. With a language
            model, `template` marks an empty answer that the template has replaced.
        failures: users whose question failed.
        not_asked: number of users whose question was not asked, after too many failures in a row.
    """

    texts: Sequence[str | None]
    sources: Sequence[TextSource | None]
    failures: tuple[FailedUser, ...] = ()
    not_asked: int = 0


@runtime_checkable
class PreferenceTextProvider(Protocol):
    """Describes in words what each user likes."""

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """All that the texts depend on besides the training side: provider, model, prompt."""
        ...

    def describe(self, side: TrainingSide, progress: ProgressCallback) -> Descriptions:
        """A text for each user with training items."""
        ...


@runtime_checkable
class PreferenceVectorProvider(Protocol):
    """Describes in numbers what each user likes, without words."""

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """All that the vectors depend on besides the training side."""
        ...

    def vectors(self, side: TrainingSide) -> tuple[np.ndarray, np.ndarray]:
        """Float32 (n_users, d) and presence (n_users,); rows that are not present are zero."""
        ...


Provider = PreferenceTextProvider | PreferenceVectorProvider


@dataclass(frozen=True)
class ModelAnswer:
    """The answer of a language model to one prompt.

    Attributes:
        text: the answer; may be empty.
        tokens_in, tokens_out: as the model counted them; None if it did not report them.
    """

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True)
class Refusal:
    """No answer to one prompt, and why."""

    reason: str


@runtime_checkable
class LanguageModel(Protocol):
    """Prompts in, answers out.

    Attributes:
        max_tokens: maximum length of an answer.
    """

    max_tokens: int

    def identity(self) -> Mapping[str, Any]:
        """All that an answer depends on besides the prompt; it must not contain a secret."""
        ...

    def answers(
        self, prompts: Sequence[str]
    ) -> Generator[tuple[int, ModelAnswer | Refusal], None, None]:
        """Index of a prompt and its answer, each as soon as it is known, in any order.

        Raises:
            InputError: nothing can be asked at all, for example because the key is wrong.
        """
        ...


@dataclass(frozen=True)
class ProviderContext:
    """What a provider may use besides its own options.

    Attributes:
        answers: file that keeps the answers of a language model; None keeps them in memory.
        device: where a model on this machine runs.
        seed: of providers that draw random numbers and are given no seed of their own.
    """

    answers: Path | None = None
    device: str = "cpu"
    seed: int = DEFAULT_SEED


def _register_own() -> None:
    for name in ("given", "language_model", "template", "vectors"):
        import_module(f"modalign.preferences.{name}")


ProviderFactory = Callable[..., Provider]
"""Called with a `ProviderContext` and the options of the provider."""
PROVIDERS: Registry[ProviderFactory] = Registry("provider", "modalign.preferences", _register_own)


def make_provider(name: str, context: ProviderContext | None = None, **options: Any) -> Provider:
    """Build the provider called `name`.

    Args:
        name: one of `PROVIDERS`.
        context: where answers are kept, the device and the seed; None takes the defaults.
        options: of this provider.

    Raises:
        UnknownName: there is no such provider; the nearest name is suggested.
        ConfigError: an option is unknown, missing or out of its bounds.

    Example:
        >>> make_provider("template", n_words=5).options.n_words
        5
    """
    return PROVIDERS[name](context or ProviderContext(), **options)
