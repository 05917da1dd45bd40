import sys
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.vocabulary import Vocabulary
from modalign.encoding.cache import cache_folder
from modalign.encoding.encode import encodable, encode, text_columns
from modalign.encoding.encoders.encoder import ENCODERS, UnreadableInput
from modalign.errors import ConfigError, DataError, UnknownName


class Lengths:
    """Counts characters; stops after a number of calls, as a kill would."""

    name, kind, batch_size, dim = "lengths", "text", 2, 3

    def __init__(self, stop_after=None, revision=1):
        self.calls, self.stop_after, self.revision = 0, stop_after, revision

    def provenance(self):
        return {"encoder": self.name, "revision": self.revision}

    def read(self, raw):
        if "Blue" in raw:
            raise UnreadableInput("blue things are not read")
        return raw

    def encode(self, batch):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return np.array([[len(t), t.count("e"), 1] for t in batch], np.float32)


def file_of(dataset, name="text"):
    return dataset.folder / "modalities" / f"{name}.safetensors"


def content_of(dataset):
    """All that the file says; safetensors writes its metadata in no fixed order."""
    with safe_open(file_of(dataset), framework="numpy") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in sorted(file.keys())}
        return tensors, file.metadata()


def test_rows_presence_and_report(shop):
    out, report = encode(shop, "text", Lengths())
    text = Dataset.load(shop.folder).modalities["text"]
    assert text.present.tolist() == [True, True, True, False, False, False, True, True]
    assert text.features[0].tolist() == [30, 4, 1]
    assert not text.features[~text.present].any()
    assert report.n_missing == 3
    assert report.corrupt == (("i4", "blue things are not read"),)
    np.testing.assert_array_equal(out.modalities["text"].features, text.features)
    assert out.modalities["text"].provenance == text.provenance


def test_a_kill_costs_one_chunk_and_changes_nothing(shop):
    encode(shop, "text", Lengths(), resume=False)
    whole = content_of(shop)
    file_of(shop).unlink()
    with pytest.raises(KeyboardInterrupt):
        encode(shop, "text", Lengths(stop_after=2))
    assert not file_of(shop).exists()
    second = Lengths()
    _, report = encode(shop, "text", second)
    assert (second.calls, report.reused) == (2, 3)
    assert content_of(shop) == whole
    assert report.corrupt == (("i4", "blue things are not read"),)


def test_a_broken_file_of_the_cache_is_computed_again(shop):
    with pytest.raises(KeyboardInterrupt):
        encode(shop, "text", Lengths(stop_after=2))
    _, two = sorted(cache_folder().glob("*/*.rows"))
    two.write_bytes(two.read_bytes()[:40])
    _, report = encode(shop, "text", Lengths())
    assert (report.reused, report.encoded) == (2, 3)


def test_without_the_cache_all_is_encoded(shop, monkeypatch):
    encode(shop, "text", Lengths())
    file_of(shop).unlink()
    shop = Dataset.load(shop.folder)
    for options in ({"resume": False}, {"force": True}):
        assert encode(shop, "text", Lengths(), **options)[1].reused == 0
    monkeypatch.setenv("MODALIGN_CACHE", "off")
    assert cache_folder() is None
    assert encode(shop, "text", Lengths())[1].reused == 0


def test_a_content_is_encoded_once_for_all_data_sets(shop, tmp_path):
    _, report = encode(shop, "text", Lengths())
    assert (report.reused, report.encoded) == (0, 5)
    # The same texts at other rows, one twice, and a new one: as after an append or a new split.
    texts = shop.item_table["title"]
    titles = [texts[7], texts[1], texts[1], "A new thing", texts[0]]
    ids = [f"x{n}" for n in range(5)]
    train = Interactions(np.zeros(5, int), np.arange(5))
    other = Dataset(
        "other", Vocabulary(["u"], "user"), Vocabulary(ids), train, Interactions.empty(),
        Interactions.empty(), item_table=pl.DataFrame({"item_id": ids, "title": titles}),
    )  # fmt: skip
    lengths = Lengths()
    made, report = encode(other, "text", lengths)
    assert (report.reused, report.encoded, lengths.calls) == (4, 1, 1)
    expected = Lengths().encode(titles)
    np.testing.assert_array_equal(made.modalities["text"].features, expected)
    # Another revision, or another column of the same content, are other settings and the same one.
    assert encode(other, "text", Lengths(revision=2))[1].reused == 0
    assert encode(other, "again", Lengths(), columns=["title"])[1].encoded == 0


def test_equal_contents_are_encoded_once_in_one_call(shop):
    ids = [f"x{n}" for n in range(6)]
    titles = ["red", "red", "Blue hat", None, "red", "Blue hat"]
    train = Interactions(np.zeros(6, int), np.arange(6))
    data = Dataset(
        "twins", Vocabulary(["u"], "user"), Vocabulary(ids), train, Interactions.empty(),
        Interactions.empty(), item_table=pl.DataFrame({"item_id": ids, "title": titles}),
    )  # fmt: skip
    lengths = Lengths()
    made, report = encode(data, "text", lengths)
    assert lengths.calls == 1
    assert made.modalities["text"].present.tolist() == [True, True, False, False, True, False]
    assert [one for one, _ in report.corrupt] == ["x2", "x5"]


def test_same_modality_is_skipped_unless_forced_or_changed(shop):
    shop, _ = encode(shop, "text", Lengths())
    again = Lengths()
    _, report = encode(shop, "text", again)
    assert report.skipped
    assert again.calls == 0
    assert (report.reused, report.encoded, report.n_missing) == (5, 0, shop.n_items - 5)
    assert report.corrupt == (("i4", "blue things are not read"),)
    assert not encode(shop, "text", Lengths(), force=True)[1].skipped
    assert not encode(shop, "text", Lengths(revision=2))[1].skipped


def test_progress_ends_at_the_whole(shop):
    seen = []
    encode(shop, "text", Lengths(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 6), (2, 6), (4, 6), (6, 6)]


def test_what_can_be_encoded(shop):
    assert encodable(shop) == ["text", "image"]
    assert text_columns(shop) == ["title"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"encoder": "minilmm"}, UnknownName, "did you mean 'minilm'"),
        ({"encoder": "efficientnet-lite0"}, ConfigError, "reads image"),
        ({"modality": "image", "encoder": "st:some"}, ConfigError, "'st:some', which reads text"),
        ({"encoder": "st:"}, UnknownName, "did you mean 'st:NAME'"),
        ({"encoder": "xx:some"}, UnknownName, "encoder"),
        ({"columns": ["titel"]}, UnknownName, "did you mean 'title'"),
        ({"encoder": "tfidf", "min_dff": 2}, ConfigError, "did you mean 'min_df'"),
        ({"encoder": "tfidf", "min_df": 0}, ConfigError, "min_df"),
        ({"encoder": "tfidf", "dim": 500}, ConfigError, "dim=500"),
        ({"batch_size": 0}, ConfigError, "batch_size"),
        ({"modality": "../x"}, ConfigError, "plain name"),
        ({"modality": "image", "columns": ["image", "title"]}, ConfigError, "one item column"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(shop, arguments, error, words):
    with pytest.raises(error, match=words):
        encode(shop, **{"modality": "text", **arguments})
    assert not (shop.folder / "modalities").exists()


def test_another_package_can_add_an_encoder(shop, monkeypatch):
    made = SimpleNamespace(make=lambda name, device, revision: Lengths(revision=revision))
    monkeypatch.setitem(sys.modules, "other_package", made)
    monkeypatch.setitem(ENCODERS._things, "own", {"text": "other_package:make"})
    out, _ = encode(shop, "text", "own", revision=7)
    assert out.modalities["text"].provenance["revision"] == 7


def test_tfidf_through_encode_gives_the_same_file_twice(shop):
    encode(shop, "text", "tfidf", dim=2, min_df=1)
    first = content_of(shop)
    _, report = encode(shop, "text", "tfidf", dim=2, min_df=1, force=True)
    assert content_of(shop) == first
    assert not report.skipped


@pytest.mark.parametrize(
    ("modality", "options", "match"),
    [
        ("audio", {}, r"Expected items with sounds.*columns item_id, title, image.*--audio FOLDER"),
        ("video", {}, r"Expected items with videos.*--video FOLDER"),
        ("audio", {"encoder": "minilm"}, r"an encoder of audio, got 'minilm', which reads text"),
        ("image", {"encoder": "tfidf"}, r"an encoder of image, got 'tfidf', which reads text"),
        ("text", {"columns": ["image"]}, r"a column of text for the modality 'text'"),
        ("audio", {"columns": ["title"]}, r"Expected items with sounds"),
        ("image", {"columns": ["title"]}, r"Expected items with pictures"),
        ("sounds", {}, r"what the modality 'sounds' is made from"),
        ("cover", {"columns": ["image"], "encoder": "words"}, r"an encoder of image, got 'words'"),
    ],
)
def test_a_modality_is_what_its_name_and_its_encoder_say(shop, modality, options, match):
    # `audio` of a shop without sounds was made from its texts, silently.
    with pytest.raises(ConfigError, match=match):
        encode(shop, modality, **options)
    assert not shop.modalities


def test_kind_and_bag_are_declared_by_the_encoder(shop, tmp_path):
    words = {"min_count": 1}
    out, _ = encode(shop, "words", "words", **words)
    out, _ = encode(out, "plot", "tfidf", columns=["title"], dim=2, min_df=1)
    loaded = type(shop).load(shop.folder)
    assert {name: (m.kind, m.bag) for name, m in loaded.modalities.items()} == {
        "plot": ("text", False),
        "words": ("text", True),
    }


def test_a_modality_of_no_item_is_refused_and_not_written(shop):
    for path in (shop.folder / "images").iterdir():
        path.write_bytes(b"no picture")

    class Pictures:
        name, kind, batch_size, dim = "pictures", "image", 4, 1
        provenance = dict

        def read(self, raw):
            from modalign.encoding.encoders.image import read_picture

            return read_picture(raw)

        def encode(self, batch):
            return np.ones((len(batch), 1), np.float32)

    with pytest.raises(DataError, match=r"7 that cannot be read, the first not a picture"):
        encode(shop, "image", Pictures())
    assert not list((shop.folder / "modalities").glob("*"))
