"""From a language model to texts about users: questions, cache, fallback; and any callable."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import ConfigError
from modalign.preferences.base import (
    Answer,
    Descriptions,
    Failure,
    LanguageModel,
    Progress,
    Refusal,
    Source,
)
from modalign.preferences.cache import AnswerCache, question_key
from modalign.preferences.cost import Estimate, estimate
from modalign.preferences.prompt import MAX_ITEMS, PROMPT_HASH, prompts
from modalign.preferences.side import TrainingSide, need_texts
from modalign.preferences.template import Template

MAX_TOKENS = 160
GIVE_UP = 20
"""Refusals in a row after which nothing more is asked: it is the server, not the question."""


class LanguageModelProvider:
    """Texts about users that a language model writes.

    Each user with training items is one question (`modalign.preferences.prompt`). An answer is
    kept in the cache as soon as it is there, and no question that has one is asked again. Where
    the answer is empty, the sentence of `Template` stands in for it, and its source says so.

    Args:
        model: who is asked.
        cache: file of the answers; None keeps them in memory.
        max_items: a question names so many of a user's items at most.

    Raises:
        ConfigError: `max_items` is not positive.
    """

    def __init__(
        self, model: LanguageModel, cache: Path | None = None, max_items: int = MAX_ITEMS
    ) -> None:
        if max_items < 1:
            raise ConfigError("1 item or more in a question", str(max_items), "give more")
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
        """What `describe` will ask and cost; options as those of `cost.estimate`."""
        asked = dict(self._keyed(self.questions(side)[1]))
        with AnswerCache(self.cache) as cache:
            known = cache.known(list(asked))
        todo = [prompt for key, prompt in asked.items() if key not in known]
        return estimate(todo, len(known), self.model.max_tokens, **prices_and_limits)

    def describe(self, side: TrainingSide, progress: Progress) -> Descriptions:
        """Ask what is not known yet, and put the texts together."""
        users, questions = self.questions(side)
        keyed = self._keyed(questions)
        with AnswerCache(self.cache) as cache:
            answers = cache.known([key for key, _ in keyed])
            cached = set(answers)
            owner = {key: row for (key, _), row in zip(keyed, users.tolist(), strict=True)}
            todo = {key: prompt for key, prompt in keyed if key not in answers}
            new, refused = self._ask(cache, side, todo, owner, progress)
        answers |= new
        texts: list[str | None] = [None] * side.n_users
        sources: list[Source | None] = [None] * side.n_users
        failures, unasked = [], 0
        for (key, _), row in zip(keyed, users.tolist(), strict=True):
            if key in answers:
                texts[row] = clean(answers[key].text) or None
                sources[row] = "cache" if key in cached else "model"
            elif key in refused:
                failures.append(Failure(side.users.ids([row])[0], refused[key]))
            else:
                unasked += 1
        told = Descriptions(texts, sources, tuple(failures), unasked)
        empty = [row for row in users.tolist() if sources[row] is not None and texts[row] is None]
        return with_template(told, side, empty)

    def _keyed(self, questions: Sequence[str]) -> list[tuple[str, str]]:
        identity = self.model.identity()
        return [(question_key(identity, question), question) for question in questions]

    def _ask(
        self,
        cache: AnswerCache,
        side: TrainingSide,
        todo: Mapping[str, str],
        owner: Mapping[str, int],
        progress: Progress,
    ) -> tuple[dict[str, Answer], dict[str, str]]:
        """New answers and reasons of refusals, by key."""
        keys = list(todo)
        answers: dict[str, Answer] = {}
        refused: dict[str, str] = {}
        in_a_row = 0
        progress(0, len(keys))
        # Closed at once when something breaks in here: nothing more is to be asked then.
        with closing(self.model.answers(list(todo.values()))) as coming:
            for done, (place, given) in enumerate(coming, start=1):
                key = keys[place]
                cache.keep(key, side.users.ids([owner[key]])[0], given)
                progress(done, len(keys))
                if isinstance(given, Answer):
                    answers[key] = given
                    in_a_row = 0
                    continue
                refused[key] = given.reason
                in_a_row += 1
                if in_a_row >= GIVE_UP:
                    break
        return answers, refused


class CallableLLM:
    """Any function from a prompt to a text as a language model.

    Args:
        function: asked for one prompt after the other.
        name: of the model behind it, with its version: another name is another model, and is
            asked anew.
        retries: so often is a prompt tried again after an exception.
        max_tokens: of an answer, for the estimate only.

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
        """Provider and the name given."""
        return {"provider": "callable", "version": 1, "model": self.name}

    def answers(
        self, prompts: Sequence[str]
    ) -> Generator[tuple[int, Answer | Refusal], None, None]:
        """One after the other."""
        for place, prompt in enumerate(prompts):
            yield place, self._one(prompt)

    def _one(self, prompt: str) -> Answer | Refusal:
        reason = ""
        for _ in range(self.retries + 1):
            try:
                said: object = self._function(prompt)
            except Exception as error:  # noqa: BLE001  a foreign function may raise anything
                reason = f"{type(error).__name__}: {error}"
                continue
            if isinstance(said, str):
                return Answer(said)
            return Refusal(f"the function returned {type(said).__name__}, not a text")
        return Refusal(reason)


def clean(text: str) -> str:
    r"""An answer on one line, without what a reasoning model thought aloud before it.

    Example:
        >>> clean("<think>They like tea?</think>  Likes tea,\n not coffee. ")
        'Likes tea, not coffee.'
    """
    said = text.rpartition("</think>")[2]
    return "" if said.lstrip().startswith("<think>") else " ".join(said.split())


def with_template(told: Descriptions, side: TrainingSide, rows: Sequence[int]) -> Descriptions:
    """The same with the template's sentence for users of `rows`."""
    if not rows:
        return told
    spare = Template().describe(side, lambda done, total: None)
    texts, sources = list(told.texts), list(told.sources)
    for row in rows:
        texts[row], sources[row] = spare.texts[row], spare.sources[row]
    return replace(told, texts=texts, sources=sources)
