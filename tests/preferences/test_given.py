import numpy as np
import polars as pl
import pytest
from asked_model import ignore
from safetensors.numpy import save_file

from modalign.errors import DataError
from modalign.preferences.given import FileTexts, FileVectors, from_file
from modalign.preferences.side import training_side


def write(path, table):
    if path.suffix == ".parquet":
        table.write_parquet(path)
    elif path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_ndjson(path)
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "t.ndjson"])
@pytest.mark.parametrize("columns", [("user_id", "text"), ("user", "profile"), ("u", "preference")])
def test_texts_are_joined_by_user_id(name, columns, library, tmp_path):
    ids = ["u3", "u0", "stranger", "u1", f"u{library.n_users - 1}"]
    said = ["Likes tea.", "Likes rum.", "Likes you.", "  ", "Not in training."]
    table = pl.DataFrame({columns[0]: ids, "n": [1, 2, 3, 4, 5], columns[1]: said})
    got = from_file(write(tmp_path / name, table))
    assert isinstance(got, FileTexts)
    told = got.describe(training_side(library), ignore)
    assert told.texts == ["Likes rum.", None, None, "Likes tea.", *[None] * (library.n_users - 4)]
    assert [one for one in told.sources if one] == ["file", "file"]


def test_ids_that_look_like_numbers_stay_what_they_are(library, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("user_id,text\n007,Likes tea.\n7,Likes rum.\n")
    assert FileTexts(path)._table["id"].to_list() == ["007", "7"]


@pytest.mark.parametrize("kind", ["npy", "safetensors", "parquet", "csv", "jsonl-less"])
def test_vectors_are_joined_by_user_id(kind, library, tmp_path):
    ids = ["u3", f"u{library.n_users - 1}", "u0"]
    rows = np.arange(6, dtype=np.float32).reshape(3, 2) + 1
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    given_ids = tmp_path / "ids.txt" if kind in ("npy", "safetensors") else None
    path = tmp_path / f"v.{kind}"
    if kind == "npy":
        np.save(path, rows)
    elif kind == "safetensors":
        save_file({"features": rows, "other": np.zeros((1, 1), np.float32)}, path)
    elif kind == "csv":
        write(path, pl.DataFrame({"a": rows[:, 0], "b": rows[:, 1], "user_id": ids}))
    else:
        path = tmp_path / "v.parquet"
        write(path, pl.DataFrame({"v": rows.tolist(), "user": ids}))
    got = from_file(path, given_ids)
    assert isinstance(got, FileVectors)
    features, present = got.vectors(training_side(library))
    # The last user has no training item: what is known of them is left out.
    assert np.flatnonzero(present).tolist() == [0, 3]
    assert features[[0, 3]].tolist() == [[5, 6], [1, 2]]
    assert not features[~present].any()


def test_another_file_is_another_provenance(library, tmp_path):
    side = training_side(library)
    facts = []
    for text in ("a", "b"):
        path = write(tmp_path / "t.csv", pl.DataFrame({"user_id": ["u1"], "text": [text]}))
        facts.append(from_file(path).provenance(side))
    assert facts[0] != facts[1]
    assert str(tmp_path) not in str(facts)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", None, "no such file"),
        ("t.txt", "u1 tea", "convert it to one of these formats"),
        ("t.csv", "user_id\nu1\n", r"other columns \(none\)"),
        ("t.csv", "user_id,a,b\nu1,x,y\n", "other columns a, b"),
        ("t.jsonl", "{not json", "readable table"),
        ("t.csv", "user_id,text\nu1,a\nu1,b\n", "'u1' twice"),
        ("t.npy", None, "no such file"),
    ],
)
def test_a_file_that_is_not_right_is_told(name, content, words, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=words):
        FileTexts(path) if "columns" in words else from_file(path)


def test_a_file_of_other_users_is_told(library, tmp_path):
    path = write(tmp_path / "t.csv", pl.DataFrame({"user_id": ["x"], "text": ["a"]}))
    with pytest.raises(DataError, match=r"such as 'u0'.*got none"):
        from_file(path).describe(training_side(library), ignore)
    np.save(tmp_path / "v.npy", np.zeros((1, 2)))
    (tmp_path / "ids.txt").write_text("x")
    with pytest.raises(DataError, match=r"users of the data.*users\.parquet"):
        from_file(tmp_path / "v.npy", tmp_path / "ids.txt").vectors(training_side(library))
