import sqlite3

import pytest

from modalign.errors import DataError
from modalign.preferences.cache import AnswerCache, question_key
from modalign.preferences.provider import ModelAnswer


def test_a_key_depends_on_model_and_prompt_alone():
    key = question_key({"model": "a", "max_tokens": 5}, "What?")
    assert key == question_key({"max_tokens": 5, "model": "a"}, "What?")
    others = [
        question_key({"model": "b", "max_tokens": 5}, "What?"),
        question_key({"model": "a", "max_tokens": 6}, "What?"),
        question_key({"model": "a", "max_tokens": 5}, "What? "),
    ]
    assert len({key, *others}) == 4


def test_answers_are_there_for_whoever_opens_the_file_next(tmp_path):
    path = tmp_path / "deep" / "answers.sqlite"
    with AnswerCache(path) as cache:
        cache.keep("k1", ModelAnswer("Likes tea.", 10, 3))
        cache.keep("k2", ModelAnswer(""))
        # Another process reads while this one still writes.
        with AnswerCache(path) as other:
            assert other.known(["k1", "k2", "k3"]) == {
                "k1": ModelAnswer("Likes tea.", 10, 3),
                "k2": ModelAnswer(""),
            }
        cache.keep("k3", ModelAnswer("Likes rum."))
        assert cache.known(["k3"])["k3"].text == "Likes rum."


def test_many_keys_at_once():
    with AnswerCache(None) as cache:
        for n in range(1203):
            cache.keep(f"k{n}", ModelAnswer(str(n)))
        found = cache.known([f"k{n}" for n in range(2000)])
    assert {key: one.text for key, one in found.items()} == {f"k{n}": str(n) for n in range(1203)}


def test_a_file_that_is_no_cache_is_told_and_left_alone(tmp_path):
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"something else entirely, and more than a hundred bytes of it " * 5)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"answers\.sqlite"):
        AnswerCache(path)
    assert path.read_bytes() == before
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("create table answers (x)")
    db.close()
    with AnswerCache(other) as cache, pytest.raises(DataError, match="no such column"):
        cache.known(["k"])
