"""The whole way, and that nothing of what is hidden comes along."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from asked_model import KEY, Said, completion

from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.errors import ConfigError, DataError
from modalign.evaluate.compare import RunResult, compare
from modalign.preferences.describe import answers_path, describe, texts_of
from modalign.preferences.embed import EncoderEmbedder, centred
from modalign.preferences.endpoint import OpenAICompatible
from modalign.preferences.language_model import CallableLLM, LanguageModelProvider
from modalign.preferences.side import training_side
from modalign.preferences.template import Template
from modalign.preferences.vectors import HistoryMean, Random
from modalign.sweeps.runner import sweep


def asked(server, path=None, **options):
    given = {"key_variable": "TEST_KEY", "retries": 0} | options
    model = OpenAICompatible(server.url, "tiny-1", sleep=lambda seconds: None, **given)
    return LanguageModelProvider(model, path)


def other_hidden_part(data: Dataset) -> Dataset:
    """The same training, and quite other pairs to find."""
    rng = np.random.default_rng(5)
    seen = set(zip(data.train.users.tolist(), data.train.items.tolist(), strict=True))
    free = [(u, i) for u in range(data.n_users) for i in range(data.n_items) if (u, i) not in seen]
    drawn = np.array(free)[rng.permutation(len(free))[:200]]
    valid, test = (
        Interactions(*np.ascontiguousarray(part.T)) for part in (drawn[:100], drawn[100:])
    )
    return replace(data, valid=valid, test=test, valid_history=test, test_history=valid)


@pytest.mark.parametrize("make", [Template, HistoryMean, Random, "model"])
@pytest.mark.slow
def test_hidden_pairs_change_no_byte(make, library, server):
    found = []
    for data in (library, other_hidden_part(library)):
        assert len(data.test) != 0
        server.requests.clear()
        provider = asked(server) if make == "model" else make()
        out, _ = describe(data, provider)
        made = out.modalities["preference"]
        sent = sorted(str(one) for one in server.requests)
        found.append((made.features.tobytes(), made.present.tobytes(), made.provenance, sent))
    assert found[0] == found[1]
    assert len(found[0][3]) == (59 if make == "model" else 0)
    # The control: what is missing in training is seen.
    less = Interactions(library.train.users[40:], library.train.items[40:])
    server.requests.clear()
    provider = asked(server) if make == "model" else make()
    out, _ = describe(replace(library, train=less), provider)
    assert out.modalities["preference"].provenance["key"] != found[0][2]["key"]
    if make == "model":
        assert sorted(str(one) for one in server.requests) != found[0][3]
    elif make is not Random:
        assert out.modalities["preference"].features.tobytes() != found[0][0]


def test_no_prompt_names_an_item_the_user_does_not_have_in_training(library, server):
    describe(library, asked(server, max_tokens=5))
    side = training_side(library)
    titles = np.array(side.titles)
    allowed = {
        frozenset(titles[side.pairs[1][side.pairs[0] == user]].tolist()) for user in side.active
    }
    for prompt in server.prompts:
        lines = [line[2:] for line in prompt.splitlines() if line.startswith("- ")]
        assert frozenset(line.partition(" (")[0] for line in lines) in allowed


def test_users_of_the_unseen_protocol_have_no_preference(library):
    hidden = library.train.users < 10
    data = replace(
        library,
        train=Interactions(library.train.users[~hidden], library.train.items[~hidden]),
        test_history=Interactions(library.train.users[hidden], library.train.items[hidden]),
    )
    out, report = describe(data, Template())
    made = out.modalities["preference"]
    assert not made.present[:10].any()
    assert not made.features[:10].any()
    assert report.n_present == made.present.sum() == 49


def test_vectors_are_the_texts_embedded_and_centred(shelf):
    out, report = describe(shelf, Template(), embedder=EncoderEmbedder("tfidf", dim=4))
    texts = texts_of(out)
    embedder = EncoderEmbedder("tfidf", dim=4)
    embedder.fit([text for text in training_side(shelf).texts if text])
    wanted, present = centred(*embedder.encode(texts["text"].to_list()))
    made = out.modalities["preference"]
    np.testing.assert_array_equal(made.features, wanted)
    np.testing.assert_array_equal(made.present, present)
    plain, _ = describe(shelf, Template(), embedder=EncoderEmbedder("tfidf", dim=4), centre=False)
    raw, _ = embedder.encode(texts["text"].to_list())
    np.testing.assert_array_equal(plain.modalities["preference"].features, raw)
    assert report.sources == {"template": 59}
    # The two tastes of the toy fall apart.
    taste = shelf.user_table["taste"].to_numpy()[present]
    rows = made.features[present]
    same = taste[:, None] == taste
    assert (rows @ rows.T)[same].mean() > 0.5 > (rows @ rows.T)[~same].mean()


def test_what_is_written_is_read_again(shelf):
    out, _ = describe(shelf, Template())
    again = Dataset.load(shelf.folder)
    assert again.modalities["preference"].fingerprint == out.modalities["preference"].fingerprint
    assert again.modalities["preference"].entity == "user"
    assert list(again.view().user_modalities) == ["preference"]
    assert "preference" not in again.view().modalities
    table = texts_of(again)
    assert table.columns == ["user_id", "text", "source"]
    assert table["user_id"].to_list() == list(shelf.users)
    # Vectors alone leave no texts behind.
    describe(again, Random())
    with pytest.raises(DataError, match="modalign describe"):
        texts_of(again)


@pytest.mark.slow
def test_the_same_again_does_nothing_and_another_does(shelf, server):
    provider = asked(server, answers_path(shelf))
    one, first = describe(shelf, provider)
    n = len(server.requests)
    two, second = describe(one, provider)
    assert second.skipped
    assert not first.skipped
    assert (second.sources, second.dim) == (first.sources, first.dim)
    np.testing.assert_array_equal(
        one.modalities["preference"].features, two.modalities["preference"].features
    )
    forced, third = describe(one, provider, force=True)
    assert not third.skipped
    assert third.sources == {"cache": 59}
    assert len(server.requests) == n
    np.testing.assert_array_equal(
        one.modalities["preference"].features, forced.modalities["preference"].features
    )


@pytest.mark.slow
def test_a_key_follows_all_that_the_numbers_depend_on(library, monkeypatch):
    def key(data=library, model="m", **options):
        out, _ = describe(data, LanguageModelProvider(CallableLLM(str, model)), **options)
        return out.modalities["preference"].provenance["key"]

    fewer = Interactions(library.train.users[1:], library.train.items[1:])
    table = library.item_table.with_columns(title=pl.lit("Another thing"))
    keys = [
        key(),
        key(model="n"),
        key(data=replace(library, train=fewer)),
        key(data=replace(library, item_table=table)),
        key(embedder=EncoderEmbedder("tfidf", dim=3)),
        key(columns=["description"]),
        key(centre=False),
        key(seed=2),
    ]
    monkeypatch.setattr("modalign.preferences.language_model.PROMPT_HASH", "another")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    assert key() == keys[0]


@pytest.mark.slow
def test_failures_stop_it_write_nothing_and_are_asked_again(shelf, server):
    server.behave = lambda number, prompt: (
        Said(400, b"filtered") if number == 7 else completion("Likes red shoes.")
    )
    provider = asked(server, answers_path(shelf), concurrency=1)
    with pytest.raises(DataError, match=r"each of 59.*1 failed question \(user u\d+: HTTP 400: f"):
        describe(shelf, provider)
    assert "preference" not in Dataset.load(shelf.folder).modalities
    server.behave = lambda number, prompt: completion("Likes old books.")
    before = len(server.requests)
    _, report = describe(shelf, provider)
    assert len(server.requests) - before == 1
    assert report.sources == {"cache": 58, "model": 1}


def test_the_template_stands_in_for_failures_where_it_is_asked_to(shelf, server):
    server.behave = lambda number, prompt: (
        Said(400, b"filtered") if number == 7 else completion("Likes red shoes.")
    )
    out, report = describe(shelf, asked(server, concurrency=1), fallback=True)
    assert report.sources == {"model": 58, "template": 1}
    ((user, reason),) = report.failures
    assert reason == "HTTP 400: filtered"
    row = texts_of(out).row(by_predicate=pl.col("user_id") == user)
    assert row[1:] == (
        Template()
        .describe(training_side(shelf), lambda d, t: None)
        .texts[shelf.users.rows([user])[0]],
        "template",
    )


def test_a_server_that_gives_up_is_told_even_with_a_fallback(shelf, server, monkeypatch):
    monkeypatch.setattr("modalign.preferences.language_model.GIVE_UP", 3)
    server.behave = lambda number, prompt: Said(500)
    with pytest.raises(DataError, match=r"3 failed questions .*56 not asked"):
        describe(shelf, asked(server, concurrency=1), fallback=True)


@pytest.mark.slow
def test_the_key_is_in_no_file(shelf, server):
    server.behave = lambda number, prompt: (
        Said(400, f"bad {KEY}".encode())
        if number == 7
        else completion(f"Likes {KEY} red {number}.")
    )
    describe(shelf, asked(server, answers_path(shelf)), fallback=True)
    for path in shelf.folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_preferences_of_another_split_are_refused(shelf):
    out, _ = describe(shelf, Template())
    swapped = replace(out, train=shelf.test, test=shelf.train)
    with pytest.raises(DataError, match=r"another one, which may contain interactions to predict"):
        swapped.view()
    mended, report = describe(swapped, Template())
    assert not report.skipped
    assert list(mended.view().user_modalities) == ["preference"]


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "text"])
def test_a_name_that_does_not_fit_is_told(name, library):
    with pytest.raises(ConfigError):
        describe(library, Template(), name=name)


def test_texts_nobody_can_read_are_told(library):
    model = LanguageModelProvider(CallableLLM(lambda prompt: "qqqq", "m"))
    with pytest.raises(DataError, match="the same words for all"):
        describe(library, model)


@pytest.mark.slow
def test_written_preferences_are_compared_with_the_mean_of_the_history(library, server, tmp_path):
    """What section 5 of RecGOAT needs: one model, and several sources of its users' preferences."""
    data, _ = describe(library, asked(server))
    found = sweep(
        data,
        "recgoat",
        tmp_path / "sources",
        {"preference": ["history_mean", "file", "random"]},
        seeds=[1, 2],
        embedding_size=8,
        epochs=4,
        batch_size=64,
    )
    rows = {row.options["preference"]: row for row in found.rows}
    assert set(rows) == {"history_mean", "file", "random"}
    assert all(list(row.seeds) == [1, 2] for row in rows.values())
    # The server tells each user's taste, so its texts cannot give what the other sources give.
    per_user = [
        pl.read_parquet(run.folder / "per_user.parquet")["ndcg@20"].to_list()
        for run in found.runs
        if run.seed == 1
    ]
    assert len({tuple(one) for one in per_user}) == 3
    tests = compare([RunResult.read(run.folder, run.name) for run in found.runs if run.seed == 1])
    assert len([pair for pair in tests.pairs if pair.metric == "recall@20"]) == 3
