import json

import numpy as np
import polars as pl
import pytest

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
    assert modality.provenance["join"] == {"rows": 3, "joined": 2, "unknown": 1}


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
    with pytest.raises(DataError, match="a matrix without ids"):
        read_precomputed(files["path"], "m", ITEMS)


def test_through_encode(shop, tmp_path):
    files = write(tmp_path, "npy-txt", ["i3", "i0", "zz"], MATRIX)
    options = {key: str(path) for key, path in files.items()}
    out, report = encode(shop, "mine", "precomputed", **options)
    assert out.modalities["mine"].features[0].tolist() == [1, 2]
    assert report.n_missing == 6
    assert (shop.folder / "modalities" / "mine.safetensors").exists()
