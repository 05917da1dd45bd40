"""What makes profiles: protocols, and what they hand over."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from modalign.preferences.side import TrainingSide

Source = Literal["model", "cache", "template", "file"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Failure:
    """A user whose question got no answer.

    Attributes:
        user_id: of whom.
        reason: why, in words.
    """

    user_id: str
    reason: str


@dataclass(frozen=True)
class Descriptions:
    """A text for each user who has one.

    Attributes:
        texts: by row of user; None where there is none.
        sources: by row, where the text comes from; None where there is none. `template` beside
            another provider tells an empty answer, which the template stands in for.
        failures: users whose question failed.
        unasked: users whose question was not asked, after too many failures in a row.
    """

    texts: Sequence[str | None]
    sources: Sequence[Source | None]
    failures: tuple[Failure, ...] = ()
    unasked: int = 0


@runtime_checkable
class PreferenceTextProvider(Protocol):
    """Says in words what each user likes."""

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """All that the texts depend on besides the training side: provider, model, prompt."""
        ...

    def describe(self, side: TrainingSide, progress: Progress) -> Descriptions:
        """A text for each user with training items."""
        ...


@runtime_checkable
class PreferenceVectorProvider(Protocol):
    """Says in numbers what each user likes, without words."""

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """All that the vectors depend on besides the training side."""
        ...

    def vectors(self, side: TrainingSide) -> tuple[np.ndarray, np.ndarray]:
        """Float32 (n_users, d) and presence (n_users,); rows that are not there are zero."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a language model said to one prompt.

    Attributes:
        text: the answer; may be empty.
        tokens_in, tokens_out: as the model counted them; None where it does not tell.
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
        max_tokens: of one answer at most.
    """

    max_tokens: int

    def identity(self) -> Mapping[str, Any]:
        """All that an answer depends on besides the prompt; no secret may be in it."""
        ...

    def answers(
        self, prompts: Sequence[str]
    ) -> Generator[tuple[int, Answer | Refusal], None, None]:
        """Place of a prompt and its answer, each as soon as it is there, in any order.

        Raises:
            InputError: nothing can be asked at all, such as under a wrong key.
        """
        ...
