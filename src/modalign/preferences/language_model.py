"""From a language model to texts about users: questions, cache, fallback; and any callable."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import ConfigError
from modalign.preferences.cache import AnswerCache, question_key
from modalign.preferences.pricing import Estimate, estimate
from modalign.preferences.prompt import MAX_ITEMS, PROMPT_HASH, prompts
from modalign.preferences.provider import (
    MAX_TOKENS,
    PROVIDERS,
    Descriptions,
    FailedUser,
    LanguageModel,
    ModelAnswer,
    ProgressCallback,
    ProviderContext,
    Refusal,
    TextSource,
)
from modalign.preferences.side import TrainingSide, need_texts
from modalign.preferences.template import Template

GIVE_UP = 20
"""Refusals in a row after which no more questions are asked: the server is at fault."""


class LanguageModelProvider:
    """Texts about users that a language model writes.

    Each user with training items is one question (`modalign.preferences.prompt`). An answer is
    stored in the cache as soon as it arrives, and a question with a stored answer is not asked
    again. If the answer is empty, the sentence of `Template` replaces it, and the text's source
    says so.

    Args:
        model: answers the questions.
        cache: file of the answers; None keeps them in memory.
        max_items: maximum number of a user's items in a question.

    Raises:
        ConfigError: `max_items` is not positive.
    """

    def __init__(
        self, model: LanguageModel, cache: Path | None = None, max_items: int = MAX_ITEMS
    ) -> None:
        if max_items < 1:
            raise ConfigError("max_items of 1 or more", str(max_items), "give a positive number")
        self.model, self.cache, self.max_items = model, cache, max_items

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """Model, prompt, items in a prompt."""
        return {**self.model.identity(), "prompt": PROMPT_HASH, "max_items": self.max_items}

    def questions(self, side: TrainingSide) -> tuple[np.ndarray, list[str]]:
        """Rows of users and their prompts.

        Raises:
            DataError: no item has a text.
        """
        need_texts(side, "questions to a language model")
        return prompts(side, self.max_items)

    def estimate(self, side: TrainingSide, **prices_and_limits: float | None) -> Estimate:
        """What `describe` will ask and cost; options as those of `pricing.estimate`."""
        asked = dict(self._keyed(self.questions(side)[1]))
        with AnswerCache(self.cache) as cache:
            known = cache.known(list(asked))
        todo = [prompt for key, prompt in asked.items() if key not in known]
        return estimate(todo, len(known), self.model.max_tokens, **prices_and_limits)

    def describe(self, side: TrainingSide, progress: ProgressCallback) -> Descriptions:
        """Ask the questions without a stored answer, and collect all texts."""
        users, questions = self.questions(side)
        keyed = self._keyed(questions)
        with AnswerCache(self.cache) as cache:
            answers = cache.known([key for key, _ in keyed])
            cached = set(answers)
            todo = {key: prompt for key, prompt in keyed if key not in answers}
            new, refused = self._ask(cache, todo, progress)
        answers |= new
        texts: list[str | None] = [None] * side.n_users
        sources: list[TextSource | None] = [None] * side.n_users
        failures, not_asked = [], 0
        for (key, _), row in zip(keyed, users.tolist(), strict=True):
            if key in answers:
                texts[row] = clean(answers[key].text) or None
                sources[row] = "cache" if key in cached else "model"
            elif key in refused:
                failures.append(FailedUser(side.users.ids([row])[0], refused[key]))
            else:
                not_asked += 1
        found = Descriptions(texts, sources, tuple(failures), not_asked)
        empty = [row for row in users.tolist() if sources[row] is not None and texts[row] is None]
        return with_template(found, side, empty)

    def _keyed(self, questions: Sequence[str]) -> list[tuple[str, str]]:
        identity = self.model.identity()
        return [(question_key(identity, question), question) for question in questions]

    def _ask(
        self, cache: AnswerCache, todo: Mapping[str, str], progress: ProgressCallback
    ) -> tuple[dict[str, ModelAnswer], dict[str, str]]:
        """New answers and reasons of refusals, by key."""
        keys = list(todo)
        answers: dict[str, ModelAnswer] = {}
        refused: dict[str, str] = {}
        in_a_row = 0
        progress(0, len(keys))
        # Closed as soon as something fails in here, so that nothing more is asked.
        with closing(self.model.answers(list(todo.values()))) as coming:
            for done, (place, given) in enumerate(coming, start=1):
                if isinstance(given, ModelAnswer):
                    cache.keep(keys[place], given)
                    answers[keys[place]] = given
                    in_a_row = 0
                else:
                    refused[keys[place]] = given.reason
                    in_a_row += 1
                progress(done, len(keys))
                if in_a_row >= GIVE_UP:
                    break
        return answers, refused


class CallableLLM:
    """Any function from a prompt to a text as a language model.

    Args:
        function: called with one prompt after the other.
        name: of the model behind it, with its version. Stored answers belong to this name.
        retries: how often a prompt is repeated after an exception.
        max_tokens: maximum length of an answer in tokens, for the estimate only.

    Raises:
        ConfigError: an empty name.

    Example:
        >>> model = CallableLLM(lambda prompt: "Likes tea.", name="tea-lover-1")
        >>> list(model.answers(["What?"]))[0][1].text
        'Likes tea.'
    """

    def __init__(
        self,
        function: Callable[[str], str],
        name: str,
        retries: int = 2,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        if not name:
            raise ConfigError("the name of the model behind a callable", "none", "give a name")
        self._function, self.name, self.retries = function, name, retries
        self.max_tokens = max_tokens

    def identity(self) -> dict[str, Any]:
        """Provider and the given name."""
        return {"provider": "callable", "version": 1, "model": self.name}

    def answers(
        self, prompts: Sequence[str]
    ) -> Generator[tuple[int, ModelAnswer | Refusal], None, None]:
        """One after the other."""
        for place, prompt in enumerate(prompts):
            yield place, self._one(prompt)

    def _one(self, prompt: str) -> ModelAnswer | Refusal:
        reason = ""
        for _ in range(self.retries + 1):
            try:
                said: object = self._function(prompt)
            except Exception as error:  # noqa: BLE001  a foreign function may raise anything
                reason = f"{type(error).__name__}: {error}"
                continue
            if isinstance(said, str):
                return ModelAnswer(said)
            return Refusal(f"the function returned {type(said).__name__}, not a text")
        return Refusal(reason)


def clean(text: str) -> str:
    r"""An answer on one line, without the thoughts that a reasoning model puts before it.

    Example:
        >>> clean("<think>They like tea?</think>  Likes tea,\n not coffee. ")
        'Likes tea, not coffee.'
    """
    said = text.rpartition("</think>")[2]
    return "" if said.lstrip().startswith("<think>") else " ".join(said.split())


def with_template(found: Descriptions, side: TrainingSide, rows: Sequence[int]) -> Descriptions:
    """The same descriptions with the template's sentence for the users of `rows`.

    Args:
        found: texts of all users.
        side: the training side that the template describes.
        rows: of the users whose text is replaced.
    """
    if not rows:
        return found
    spare = Template().describe(side, lambda done, total: None)
    texts, sources = list(found.texts), list(found.sources)
    for row in rows:
        texts[row], sources[row] = spare.texts[row], spare.sources[row]
    return replace(found, texts=texts, sources=sources)


def _openai(
    context: ProviderContext, max_items: int = MAX_ITEMS, **options: Any
) -> LanguageModelProvider:
    from modalign.preferences.endpoint import OpenAICompatible

    return LanguageModelProvider(OpenAICompatible(**options), context.answers, max_items)


def _local(
    context: ProviderContext, model: str = "", max_items: int = MAX_ITEMS, **options: Any
) -> LanguageModelProvider:
    from modalign.preferences.local_model import LocalTransformers

    made = LocalTransformers(model, context.device, **options)
    return LanguageModelProvider(made, context.answers, max_items)


PROVIDERS.register("openai", _openai)
PROVIDERS.register("local", _local)
