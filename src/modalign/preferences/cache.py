"""Answers of language models on disk, so that a question is paid for once."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from modalign.errors import DataError
from modalign.preferences.provider import ModelAnswer

TABLES = """
create table if not exists answers
    (key text primary key, text text not null, tokens_in integer, tokens_out integer);
"""
AT_ONCE = 500


def question_key(identity: Mapping[str, Any], prompt: str) -> str:
    """Hash of all that an answer depends on, 32 hexadecimal digits."""
    text = json.dumps([dict(identity), prompt], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class AnswerCache:
    """One SQLite file of answers.

    Each answer is on disk before the next one is awaited, so that an interruption loses only
    the requests under way. Of prompts, only hashes are stored.

    Args:
        path: of the file, which is created if it does not exist; None keeps answers in memory.

    Raises:
        DataError: the file is not a cache of answers, or cannot be written.

    Example:
        >>> with AnswerCache(None) as cache:
        ...     cache.keep("k", ModelAnswer("Likes tea."))
        ...     cache.known(["k", "other"])
        {'k': ModelAnswer(text='Likes tea.', tokens_in=None, tokens_out=None)}
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", timeout=30)
            with closing(self._db.cursor()) as cursor:
                cursor.executescript(TABLES)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def known(self, keys: Sequence[str]) -> dict[str, ModelAnswer]:
        """The stored answers, by key."""
        found: dict[str, ModelAnswer] = {}
        for start in range(0, len(keys), AT_ONCE):
            part = keys[start : start + AT_ONCE]
            marks = ",".join("?" * len(part))
            query = f"select key, text, tokens_in, tokens_out from answers where key in ({marks})"
            for key, *rest in self._run(query, part):
                found[key] = ModelAnswer(*rest)
        return found

    def keep(self, key: str, answer: ModelAnswer) -> None:
        """Store one answer; raises `DataError` if the file cannot be written.

        Raises:
            DataError: the file cannot be written.
        """
        row = (key, answer.text, answer.tokens_in, answer.tokens_out)
        self._run("insert or replace into answers values (?, ?, ?, ?)", row)
        self._db.commit()

    def _run(self, query: str, values: Iterable[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> DataError:
        fix = "check the disk space and permissions, or remove the file and ask again"
        return DataError(f"a cache of answers in {self.path}", str(error), fix)
