import json

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from safetensors.numpy import save_file

from modalign.data.vocabulary import Vocabulary
from modalign.encoding.encode import encode
from modalign.encoding.encoders.precomputed import read_precomputed
from modalign.errors import DataError

IDS = ["c", "a", "x"]
MATRIX = np.float32([[5, 6], [1, 2], [7, 8]])
ITEMS = Vocabulary(["a", "b", "c"])


def write(folder, kind, ids, matrix):
    path = folder / f"f.{kind.partition('-')[0]}"
    if kind.startswith("npy"):
        np.save(path, matrix)
        names = folder / f"ids.{kind.partition('-')[2]}"
        text = {
            "txt": "\n".join(ids), "json": json.dumps(ids), "csv": "\n".join(["item_id", *ids])
        }  # fmt: skip
        names.write_text(text[names.suffix[1:]])
        return {"path": path, "ids": names}
    table = pl.DataFrame({"item_id": ids, "p": matrix[:, 0], "q": matrix[:, 1]})
    if kind == "parquet-list":
        table = pl.DataFrame({"item_id": ids, "v": matrix.tolist()})
    table.write_csv(path) if kind == "csv" else table.write_parquet(path)
    return {"path": path}


@pytest.mark.parametrize(
    "kind", ["npy-txt", "npy-json", "npy-csv", "csv", "parquet", "parquet-list"]
)
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_joined_by_id_not_by_position(tmp_path, kind, order):
    files = write(tmp_path, kind, [IDS[i] for i in order], MATRIX[order])
    modality = read_precomputed(name="mine", items=ITEMS, **files)
    assert modality.features.tolist() == [[1, 2], [0, 0], [5, 6]]
    assert modality.present.tolist() == [True, False, True]
    assert modality.provenance["join"] == {"rows": 3, "joined": 2, "unknown": 1, "zeros": 0}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_number_is_refused_with_row_and_id(tmp_path, bad):
    matrix = MATRIX.copy()
    matrix[1, 1] = bad
    with pytest.raises(DataError, match=r"row 1 .*'a'"):
        read_precomputed(name="m", items=ITEMS, **write(tmp_path, "npy-txt", IDS, matrix))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["p", "q", "r"], "rows of other items"),
        (["a", "a", "c"], "'a' twice"),
        (["a", "b"], "2 ids"),
    ],
)
def test_wrong_ids_are_refused(tmp_path, ids, words):
    with pytest.raises(DataError, match=words):
        read_precomputed(name="m", items=ITEMS, **write(tmp_path, "npy-txt", ids, MATRIX))


def test_a_matrix_without_ids_is_refused(tmp_path):
    files = write(tmp_path, "npy-txt", IDS, MATRIX)
    files["ids"].unlink()
    with pytest.raises(DataError, match=r"a matrix without ids[^$]*f\.ids\.txt"):
        read_precomputed(files["path"], "m", ITEMS)


def test_through_encode(shop, tmp_path):
    files = write(tmp_path, "npy-txt", ["i3", "i0", "zz"], MATRIX)
    options = {key: str(path) for key, path in files.items()}
    out, report = encode(shop, "mine", "precomputed", **options)
    assert out.modalities["mine"].features[0].tolist() == [1, 2]
    assert report.n_missing == 6
    assert (shop.folder / "modalities" / "mine.safetensors").exists()


ROWS_AND_IDS = {
    "npz with ids": ("f.npz", "inside"),
    "npz of another name": ("f.npz", "x"),
    "npz of scipy": ("f.npz", "ids.txt"),
    "npy with a file of its name": ("f.npy", "f.ids.txt"),
    "npy with ids.npy": ("f.npy", "ids.npy"),
    "safetensors with ids.json": ("f.safetensors", "ids.json"),
    "safetensors with ids": ("f.safetensors", "inside"),
    "parquet": ("f.parquet", "inside"),
}


@pytest.mark.parametrize(("name", "where"), ROWS_AND_IDS.values(), ids=ROWS_AND_IDS)
def test_every_format_with_its_ids_beside_or_inside(tmp_path, name, where):
    rows = np.array([[1, 2], [0, 0], [3, 4]], np.float32)
    ids = ["12", "7", "99"]
    path = tmp_path / name
    if name.endswith("npz") and where == "ids.txt":
        sp.save_npz(path, sp.csr_array(rows))
    elif name.endswith("npz"):
        np.savez(path, **{"vectors" if where == "x" else "features": rows, "item_id": ids})
    elif name.endswith("npy"):
        np.save(path, rows)
    elif name.endswith("parquet"):
        pl.DataFrame({"item_id": ids, "a": rows[:, 0], "b": rows[:, 1]}).write_parquet(path)
    else:
        more = {"ids": np.array([12, 7, 99])} if where == "inside" else {}
        save_file({"features": rows, **more}, path)
    if where.endswith("txt"):
        (tmp_path / where).write_text("\n".join(ids))
    elif where.endswith("json"):
        (tmp_path / where).write_text(json.dumps(ids))
    elif where.endswith("npy"):
        np.save(tmp_path / where, np.array([12, 7, 99]))
    made = read_precomputed(path, "own", Vocabulary(["7", "8", "12"]))
    # A row of zeros is missing, and so is an item without a row.
    assert made.present.tolist() == [False, False, True]
    assert made.features.tolist() == [[0, 0], [0, 0], [1, 2]]
    assert made.provenance["join"] == {"rows": 3, "joined": 2, "unknown": 1, "zeros": 1}


def test_an_archive_that_is_none_or_has_two_matrices(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="arrays of numbers"):
        read_precomputed(tmp_path / "a.npz", "own", Vocabulary(["7"]))
    np.savez(tmp_path / "b.npz", one=np.ones((2, 2)), two=np.ones((2, 2)), ids=["7", "8"])
    with pytest.raises(DataError, match="2 matrices among one, two"):
        read_precomputed(tmp_path / "b.npz", "own", Vocabulary(["7"]))
    np.savez(tmp_path / "c.npz", one=np.ones((2, 2)), ids=np.ones((2, 2)))
    with pytest.raises(DataError, match="as ids in"):
        read_precomputed(tmp_path / "c.npz", "own", Vocabulary(["7"]))
