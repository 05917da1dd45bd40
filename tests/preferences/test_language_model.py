from dataclasses import replace

import numpy as np
import pytest
from asked_model import Said, completion, ignore

from modalign.data.interactions import Interactions
from modalign.errors import ConfigError, DataError
from modalign.preferences import language_model
from modalign.preferences.endpoint import OpenAICompatible
from modalign.preferences.language_model import CallableLLM, LanguageModelProvider, clean
from modalign.preferences.provider import ModelAnswer, Refusal
from modalign.preferences.side import training_side
from modalign.preferences.template import Template


def endpoint(server, **options):
    given = {"key_variable": None, "retries": 0, "concurrency": 1} | options
    return OpenAICompatible(server.url, "tiny-1", sleep=lambda seconds: None, **given)


def test_each_user_gets_the_answer_to_their_own_question(library):
    side = training_side(library)
    provider = LanguageModelProvider(CallableLLM(lambda prompt: f"Said to {hash(prompt)}", "m"))
    told = provider.describe(side, ignore)
    users, questions = provider.questions(side)
    for user, question in zip(users.tolist(), questions, strict=True):
        assert told.texts[user] == f"Said to {hash(question)}"
    assert told.texts[-1] is None
    assert (told.failures, told.not_asked) == ((), 0)


def test_what_was_answered_is_not_asked_again(library, server, tmp_path):
    side = training_side(library)
    provider = LanguageModelProvider(endpoint(server), tmp_path / "answers.sqlite")
    one = provider.describe(side, ignore)
    n = len(server.requests)
    assert n == len(set(server.prompts)) == len(side.active)
    two = LanguageModelProvider(endpoint(server), tmp_path / "answers.sqlite").describe(
        side, ignore
    )
    assert len(server.requests) == n
    assert two.texts == one.texts
    assert set(one.sources) == {"model", None}
    assert set(two.sources) == {"cache", None}
    # Another model, or another prompt, is another question.
    other = LanguageModelProvider(endpoint(server, max_tokens=9), tmp_path / "answers.sqlite")
    assert other.estimate(side).questions == n
    fewer = LanguageModelProvider(endpoint(server), tmp_path / "answers.sqlite", max_items=2)
    assert fewer.estimate(side).questions > 0
    assert provider.estimate(side).questions == 0
    assert provider.estimate(side).known == n


@pytest.mark.slow
def test_a_kill_costs_what_was_under_way(library, server, tmp_path):
    side = training_side(library)
    path = tmp_path / "answers.sqlite"

    def killed(done, total):
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LanguageModelProvider(endpoint(server), path).describe(side, killed)
    provider = LanguageModelProvider(endpoint(server), path)
    assert provider.estimate(side).known == 13
    before = len(server.requests)
    told = provider.describe(side, ignore)
    assert len(server.requests) - before == len(side.active) - 13
    assert sum(one is not None for one in told.texts) == len(side.active)
    whole = LanguageModelProvider(endpoint(server)).describe(side, ignore)
    assert told.texts == whole.texts


def test_an_empty_answer_gives_way_to_the_template(library, tmp_path):
    side = training_side(library)
    spare = Template().describe(side, ignore)
    quiet = set(LanguageModelProvider(CallableLLM(str, "m")).questions(side)[1][:3])
    empty = iter(["", "  \n", "<think>never said"])
    model = CallableLLM(lambda prompt: next(empty) if prompt in quiet else "Likes tea.", "m")
    path = tmp_path / "answers.sqlite"
    for source in ("model", "cache"):  # the second time the emptiness comes from the cache
        told = LanguageModelProvider(model, path).describe(side, ignore)
        rows = side.active[:3].tolist()
        assert [told.texts[row] for row in rows] == [spare.texts[row] for row in rows]
        assert {told.sources[row] for row in rows} == {"template"}
        assert {told.sources[row] for row in side.active[3:].tolist()} == {source}
        assert told.failures == ()


def test_failures_are_told_recorded_and_asked_again(library, server, tmp_path, monkeypatch):
    monkeypatch.setattr(language_model, "GIVE_UP", 2)  # in a row, which these are not
    side = training_side(library)
    path = tmp_path / "answers.sqlite"
    server.behave = lambda number, prompt: (
        Said(400, b"no") if number in (3, 8) else completion("Likes tea.")
    )
    told = LanguageModelProvider(endpoint(server), path).describe(side, ignore)
    assert [one.reason for one in told.failures] == ["HTTP 400: no"] * 2
    server.behave = lambda number, prompt: completion("Likes tea.")
    before = len(server.requests)
    again = LanguageModelProvider(endpoint(server), path).describe(side, ignore)
    assert len(server.requests) - before == 2
    assert again.failures == ()


def test_a_server_that_only_fails_is_left_alone(library, server, monkeypatch):
    monkeypatch.setattr(language_model, "GIVE_UP", 5)
    server.behave = lambda number, prompt: completion("x") if number < 4 else Said(500)
    side = training_side(library)
    told = LanguageModelProvider(endpoint(server)).describe(side, ignore)
    assert len(told.failures) == 5
    assert told.not_asked == len(side.active) - 4 - 5
    assert len(server.requests) <= 4 + 5 + 3


def test_users_with_the_same_question_share_an_answer(library):
    train = Interactions(np.array([0, 1, 2]), np.array([5, 5, 6]))
    side = training_side(replace(library, train=train))
    asked = []
    model = CallableLLM(lambda prompt: (asked.append(prompt), f"No. {len(asked)}")[1], "m")
    provider = LanguageModelProvider(model)
    assert provider.estimate(side).questions == 2
    told = provider.describe(side, ignore)
    assert told.texts[:3] == ["No. 1", "No. 1", "No. 2"]
    assert len(asked) == 2


def test_a_callable_is_tried_again_and_its_failure_is_told():
    calls = []

    def moody(prompt):
        calls.append(prompt)
        if prompt == "never" or len(calls) == 1:
            raise RuntimeError("not now")
        return 5 if prompt == "number" else "Likes tea."

    got = dict(CallableLLM(moody, "m", retries=1).answers(["a", "never", "number"]))
    assert got == {
        0: ModelAnswer("Likes tea."),
        1: Refusal("RuntimeError: not now"),
        2: Refusal("the function returned int, not a text"),
    }
    assert len(calls) == 5
    with pytest.raises(ConfigError, match="name of the model"):
        CallableLLM(moody, "")


def test_thoughts_are_no_part_of_an_answer():
    assert clean("thoughts</think> Likes\ttea. ") == "Likes tea."
    assert clean("<think>on and on") == ""
    assert clean("Likes <think> pieces.") == "Likes <think> pieces."


def test_items_without_texts_and_no_items_are_told(library):
    bare = training_side(replace(library, item_table=library.item_table.select("item_id")))
    provider = LanguageModelProvider(CallableLLM(str, "m"))
    with pytest.raises(DataError, match="questions to a language model"):
        provider.estimate(bare)
    with pytest.raises(ConfigError, match="max_items of 1 or more"):
        LanguageModelProvider(CallableLLM(str, "m"), max_items=0)
