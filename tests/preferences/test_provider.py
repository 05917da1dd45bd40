"""The table of providers, and building one by name."""

import pytest

from modalign.errors import ConfigError, UnknownName
from modalign.preferences.describe import answers_path, describe
from modalign.preferences.provider import PROVIDERS, ProviderContext, make_provider
from modalign.preferences.template import Template


def test_each_name_builds_a_provider_of_that_name(library, server, tmp_path):
    (tmp_path / "said.csv").write_text("user_id,text\nu1,red shoe\n")
    options = {
        "file": {"path": str(tmp_path / "said.csv")},
        "openai": {"base_url": server.url, "model": "tiny", "key_variable": "TEST_KEY"},
    }
    for name in set(PROVIDERS) - {"local", "history-mean"}:
        made = make_provider(name, **options.get(name, {}))
        assert made.provenance(library)["provider"] == name


def test_a_context_gives_the_file_of_answers_and_the_seed(server, tmp_path):
    context = ProviderContext(tmp_path / "answers.sqlite", seed=7)
    asked = make_provider(
        "openai", context, base_url=server.url, model="m", key_variable="none", max_items=3
    )
    assert (asked.cache, asked.max_items) == (tmp_path / "answers.sqlite", 3)
    assert make_provider("random", context).options.seed == 7
    assert make_provider("random", context, seed=2).options.seed == 2


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("tmplate", {}, UnknownName, "did you mean 'template'"),
        ("template", {"n_word": 3}, ConfigError, "did you mean 'n_words'"),
        ("history-mean", {"modalty": "text"}, ConfigError, "did you mean 'modality'"),
        ("history-mean", {"modality": [3]}, ConfigError, "modality of provider history-mean"),
        ("file", {}, ConfigError, "--set path=FILE"),
        ("file", {"path": "x.csv", "id": "y"}, ConfigError, "did you mean 'ids'"),
        ("openai", {"base_url": "http://h/v1", "model": "m", "retires": 1}, ConfigError, "retries"),
        ("local", {"batch": 3}, ConfigError, "did you mean 'batch_size'"),
    ],
)
def test_a_wrong_name_or_option_is_refused(name, options, error, words):
    with pytest.raises(error, match=words):
        make_provider(name, **options)


def test_another_package_can_add_a_provider(shelf, monkeypatch):
    seen = []

    def factory(context, **options):
        seen.append(context)
        return Template(**options)

    monkeypatch.setitem(PROVIDERS._things, "own", factory)
    out, report = describe(shelf, "own", seed=3)
    assert report.sources == {"template": 59}
    assert seen == [ProviderContext(answers_path(shelf), seed=3)]
    assert out.modalities["preference"].features.tobytes() == (
        describe(shelf, seed=3)[0].modalities["preference"].features.tobytes()
    )
