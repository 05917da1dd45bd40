"""Mistakes people make, through the command line: three facts, exit code 2, nothing touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from calling import Cli, snapshot

from modalign.core.modality import Modality
from modalign.data.dataset import Dataset
from modalign.data.modality_file import write_modality
from modalign.data.vocabulary import Vocabulary
from modalign.experiments.fit import fit
from modalign.testing.toy import toy_dataset

Break = Callable[[], Any]


def nothing() -> None:
    """The mistake is on the command line alone."""


def csv(text: str, name: str = "bad.csv") -> Break:
    return lambda: Path(name).write_text(text)


def table_with(line: str, header: str = "user_id,item_id,rating") -> Break:
    """A table whose third line is `line`."""
    return csv(f"{header}\nu1,i1,5\n{line}\nu2,i2,4\n")


def mmrec(features: np.ndarray) -> Break:
    def write() -> None:
        folder = Path("mm")
        folder.mkdir()
        rows = [f"{u}\t{i}\t{i % 3}" for u in range(4) for i in range(6)]
        (folder / "mm.inter").write_text("userID\titemID\tx_label\n" + "\n".join(rows) + "\n")
        np.save(folder / "text_feat.npy", features)

    return write


def features(value: float = 1.0, n: int = 6) -> np.ndarray:
    found = np.ones((n, 3), np.float32)
    found[2, 1] = value
    return found


def split_folder(**parts: str) -> Break:
    def write() -> None:
        Path("parts").mkdir()
        for name, text in parts.items():
            Path("parts", f"{name}.csv").write_text(text)

    return write


def files(folder: str, **texts: str) -> Break:
    def write() -> None:
        Path(folder).mkdir()
        for name, text in texts.items():
            Path(folder, name.replace("__", ".").replace("_", "-")).write_text(text)

    return write


def cut(path: str) -> Break:
    """Half of a file, as a full disk or a kill leaves it."""
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2])


def changed(path: str, old: str, new: str) -> Break:
    def write() -> None:
        text = Path(path).read_text()
        assert old in text
        Path(path).write_text(text.replace(old, new))

    return write


def other_items() -> None:
    """A modality file of another catalogue under the name of one of ours."""
    other = toy_dataset(seed=2, n_items=50)
    write_modality(Path("data/toy/modalities"), other.modalities["text"], other.items)


def not_finite() -> None:
    """A modality file of the right items with a NaN in it."""
    data = Dataset.load("data/toy")
    m = data.modalities["text"]
    row = int(np.flatnonzero(m.present)[0])
    m.features[row, 0] = np.nan
    broken = object.__new__(Modality)
    for key, value in vars(m).items():
        object.__setattr__(broken, key, value)
    broken.__dict__.pop("fingerprint", None)
    write_modality(Path("data/toy/modalities"), broken, data.items)


def without_modalities() -> None:
    for path in Path("data/toy/modalities").iterdir():
        path.unlink()


def without_content() -> None:
    without_modalities()
    path = Path("data/toy/items.parquet")
    pl.read_parquet(path).select("item_id").write_parquet(path)


def interrupted() -> None:
    Path("runs/bpr/results.json").unlink()


def strangers_data() -> None:
    """Data of which a run knows no user and no item."""
    other = toy_dataset(seed=5)
    names = {ids.kind: ["x" + one for one in ids] for ids in (other.users, other.items)}
    users, items = Vocabulary(names["user"], "user"), Vocabulary(names["item"], "item")
    table = other.item_table.with_columns(item_id=items.series)
    changed_ids: dict[str, Any] = {
        "users": users,
        "items": items,
        "item_table": table,
        "user_table": pl.DataFrame(),
    }
    replace(other, **changed_ids).save("data/other")


def run_on_strangers() -> None:
    """A finished run that shares no user with the others, without training one."""
    shutil.copytree("runs/pop", "runs/other")
    fingerprint = Dataset.load("data/toy").fingerprint
    for name in ("config.yaml", "results.json"):
        changed(f"runs/other/{name}", fingerprint, "ab" * (len(fingerprint) // 2))()
    path = Path("runs/other/per_user.parquet")
    users = pl.read_parquet(path).with_columns(user_id="x" + pl.col("user_id"))
    users.write_parquet(path)


def run_that_reads_texts_and_lost_them() -> None:
    fit(Dataset.load("data/toy"), "vbpr", out="runs/vbpr", epochs=1, ks=(5, 10))
    without_modalities()


def other_mask() -> None:
    changed("runs/pop/config.yaml", "mask: strict", "mask: train")()
    changed("runs/pop/results.json", '"mask": "strict"', '"mask": "train"')()


def wide_precomputed(ids: list[str], value: float = 1.0) -> Break:
    def write() -> None:
        frame = {"item_id": ids, "a": [value] * len(ids), "b": [0.5] * len(ids)}
        pl.DataFrame(frame).write_parquet("own.parquet")

    return write


def a_file(path: str) -> Break:
    return csv("mine", path)


def other_things(folder: str) -> Break:
    return files(folder, notes__txt="mine")


GOOD = "user_id,item_id\n" + "".join(f"u{u},i{i}\n" for u in range(6) for i in range(5))
IMPORT = "data import table"
TO = "--out data/new"
TRAIN = "train --data data/toy --out runs/new"
REVIEW = '{"reviewerID": "a", "asin": "b", "overall": 5.0, "unixReviewTime": 1}\n'

# name: (how to break things, the command, words that must stand in the message)
CASES: dict[str, tuple[Break, str, tuple[str, ...]]] = {
    # -------------------------------------------------- the command itself
    "unknown command": (nothing, "trian", ("'trian'", "did you mean 'train'")),
    "unknown subcommand": (nothing, "data imprt", ("'imprt'", "did you mean 'import'")),
    "an option of the model as a flag": (
        nothing,
        "train --data data/toy --model bpr --out runs/new --epochs 20",
        ("'--epochs'", "--set epochs=VALUE"),
    ),
    "unknown flag": (nothing, "train --modle bpr", ("'--modle'", "did you mean '--model'")),
    "missing argument": (nothing, "data info", ("FOLDER", "modalign data info --help")),
    "missing option": (nothing, f"{IMPORT} good.csv", ("--out", "--help")),
    "option without value": (nothing, "train --data", ("--data", "--help")),
    "one argument too many": (nothing, "models bpr cm3", ("cm3", "--help")),
    "no number": (nothing, "recommend runs/bpr --user u1 -k ten", ("--k", "'ten'", "integer")),
    "too small a number": (nothing, "recommend runs/bpr --user u1 -k 0", ("--k", "'0'", "1")),
    "negative seed": (nothing, f"{TRAIN} --model bpr --seed -1", ("--seed", "'-1'")),
    # -------------------------------------------------- data import: files
    "unknown source": (nothing, f"data import tabel good.csv {TO}", ("'tabel'", "'table'")),
    "no such file": (nothing, f"{IMPORT} gone.csv {TO}", ("gone.csv", "does not exist")),
    "a folder as file": (nothing, f"{IMPORT} data {TO}", ("data", "folder")),
    "empty file": (csv(""), f"{IMPORT} bad.csv {TO}", ("bad.csv", "empty file")),
    "empty first line": (csv("\nu1,i1\n"), f"{IMPORT} bad.csv {TO}", ("empty first line",)),
    "names and no rows": (csv("user_id,item_id\n"), f"{IMPORT} bad.csv {TO}", ("no rows",)),
    "no names": (csv("1,2\n3,4\n"), f"{IMPORT} bad.csv {TO}", ("line 1", "user_id,item_id")),
    "wrong separator": (
        nothing,
        f"{IMPORT} good.csv --separator ; {TO}",
        ("one column in line 1", "separated by a comma, not by a semicolon"),
    ),
    "long separator": (
        nothing,
        f"{IMPORT} good.csv --separator :: {TO}",
        ("'::'", "a comma"),
    ),
    "missing user column": (
        csv("who,item_id\na,b\n"),
        f"{IMPORT} bad.csv {TO}",
        ("column of users", "who, item_id", "--user NAME"),
    ),
    "missing item column": (csv("user_id,x\na,b\n"), f"{IMPORT} bad.csv {TO}", ("of items",)),
    "named column missing": (
        nothing,
        f"{IMPORT} good.csv --user buyer {TO}",
        ("'buyer'", "good.csv", "user_id, item_id, rating"),
    ),
    "rating no number": (
        table_with("u1,i2,good"),
        f"{IMPORT} bad.csv {TO}",
        ("'rating'", "'good'", "line 3", "bad.csv"),
    ),
    "rating NaN": (table_with("u1,i2,nan"), f"{IMPORT} bad.csv {TO}", ("'nan'", "line 3")),
    "rating infinite": (table_with("u1,i2,inf"), f"{IMPORT} bad.csv {TO}", ("'inf'", "line 3")),
    "no user in a line": (table_with(",i2,3"), f"{IMPORT} bad.csv {TO}", ("user id", "line 3")),
    "no item in a line": (table_with("u1, ,3"), f"{IMPORT} bad.csv {TO}", ("item id", "line 3")),
    "bad time": (
        table_with("u1,i2,soon", "user_id,item_id,timestamp"),
        f"{IMPORT} bad.csv {TO}",
        ("'timestamp'", "'soon'", "line 3"),
    ),
    "too many fields": (
        table_with("u1,i2,3,4"),
        f"{IMPORT} bad.csv {TO}",
        ("3 fields", "4 fields in line 3"),
    ),
    "not UTF-8": (
        lambda: Path("bad.csv").write_bytes("user_id,item_id\nJosé,1\n".encode("latin-1")),
        f"{IMPORT} bad.csv {TO}",
        ("UTF-8", "bad.csv"),
    ),
    "broken parquet": (csv("no", "bad.parquet"), f"{IMPORT} bad.parquet {TO}", ("bad.parquet",)),
    # -------------------------------------------------- data import: filters and splits
    "too few after k-core": (
        nothing,
        f"{IMPORT} good.csv --k-core 50 {TO}",
        ("50-core", "0 interactions"),
    ),
    "no rating high enough": (nothing, f"{IMPORT} good.csv --min-rating 9 {TO}", ("9",)),
    "rating asked, none there": (
        csv(GOOD),
        f"{IMPORT} bad.csv --min-rating 4 {TO}",
        ("without ratings", "minimum rating"),
    ),
    "too few for a split": (
        csv("user_id,item_id\na,b\n"),
        f"{IMPORT} bad.csv {TO}",
        ("three interactions", "1 interactions"),
    ),
    "unknown split": (nothing, f"{IMPORT} good.csv --split ratoi {TO}", ("'ratoi'", "'ratio'")),
    "time split without times": (csv(GOOD), f"{IMPORT} bad.csv --split time {TO}", ("times",)),
    "given split not given": (nothing, f"{IMPORT} good.csv --split given {TO}", ("split",)),
    "unknown split option": (
        nothing,
        f"{IMPORT} good.csv --split-set shar=0.1 {TO}",
        ("'ratio'", "'shar'", "test, train, valid"),
    ),
    "split option of a wrong type": (
        nothing,
        f"{IMPORT} good.csv --split cold_items --split-set share=many {TO}",
        ("share", "'many'"),
    ),
    "split option out of bounds": (
        nothing,
        f"{IMPORT} good.csv --split cold_items --split-set share=2 {TO}",
        ("to be less than 1", "2"),
    ),
    "split option without value": (
        nothing,
        f"{IMPORT} good.csv --split-set share {TO}",
        ("key=value", "'share'"),
    ),
    "unknown duplicates": (
        nothing,
        f"{IMPORT} good.csv --duplicates lats {TO}",
        ("'lats'", "did you mean 'last'"),
    ),
    "unknown source option": (nothing, f"{IMPORT} good.csv --set usr=a {TO}", ("'usr'", "user")),
    "negative k-core": (nothing, f"{IMPORT} good.csv --k-core -1 {TO}", ("--k-core", "'-1'")),
    # -------------------------------------------------- data import: items, pictures, targets
    "items without ids": (
        csv("title\nA\n", "items.csv"),
        f"{IMPORT} good.csv --items items.csv {TO}",
        ("items.csv", "item_id", "title"),
    ),
    "an item twice": (
        csv("item_id,title\ni1,A\ni2,B\ni1,C\n", "items.csv"),
        f"{IMPORT} good.csv --items items.csv {TO}",
        ("'i1'", "line 2", "items.csv"),
    ),
    "no folder of pictures": (
        nothing,
        f"{IMPORT} good.csv --images pictures {TO}",
        ("pictures", "folder"),
    ),
    "target is a file": (a_file("mine"), f"{IMPORT} good.csv --out mine", ("mine", "file")),
    "target holds other things": (
        other_things("mine"),
        f"{IMPORT} good.csv --out mine",
        ("mine", "notes.txt"),
    ),
    # -------------------------------------------------- other sources
    "part of a split missing": (
        split_folder(train=GOOD, valid=GOOD),
        f"data import split parts {TO}",
        ("parts", "test"),
    ),
    "part of a split empty": (
        split_folder(train=GOOD, valid="", test=GOOD),
        f"data import split parts {TO}",
        ("valid.csv", "empty"),
    ),
    "no movielens": (other_things("ml"), f"data import movielens ml {TO}", ("u.data", "ml")),
    "no recbole": (other_things("rb"), f"data import recbole rb {TO}", (".inter", "rb")),
    "no citeulike": (other_things("cul"), f"data import citeulike cul {TO}", ("users.dat", "cul")),
    "source option of a wrong type": (
        files("cul", users__dat="2 0 1\n", mult__dat="1 0:1\n1 0:2\n", vocabulary__dat="word\n"),
        f"data import citeulike cul --set min_documents=few {TO}",
        ("min_documents", "'few'"),
    ),
    "no amazon reviews": (other_things("az"), f"data import amazon az {TO}", ("az",)),
    "broken JSON line": (
        csv(REVIEW + '{"reviewerID": \n', "reviews.json"),
        f"data import amazon reviews.json {TO}",
        ("line 2", "reviews.json"),
    ),
    "features with NaN": (
        mmrec(features(np.nan)),
        f"data import mmrec mm {TO}",
        ("text", "NaN", "2"),
    ),
    "features infinite": (
        mmrec(features(np.inf)),
        f"data import mmrec mm {TO}",
        ("text", "infinite"),
    ),
    "features for other items": (mmrec(features(n=4)), f"data import mmrec mm {TO}", ("4", "6")),
    "features cut off": (
        lambda: (mmrec(features())(), cut("mm/text_feat.npy")()),
        f"data import mmrec mm {TO}",
        ("text_feat.npy",),
    ),
    # -------------------------------------------------- prepared folders
    "no prepared folder": (nothing, "data info data/gone", ("data/gone", "modalign data import")),
    "not a prepared folder": (nothing, "data info runs", ("dataset.json", "runs")),
    "description broken": (
        cut("data/toy/dataset.json"),
        "data info data/toy",
        ("data/toy", "import it again"),
    ),
    "description of another kind": (
        changed("data/toy/dataset.json", '"schema": 1', '"schema": 99'),
        "data info data/toy",
        ("schema 99", "import it again"),
    ),
    "description is a list": (
        lambda: Path("data/toy/dataset.json").write_text("[]"),
        "data info data/toy",
        ("data/toy", "import it again"),
    ),
    "interactions missing": (
        lambda: Path("data/toy/interactions.parquet").unlink(),
        "data info data/toy",
        ("data/toy", "interactions.parquet"),
    ),
    "interactions cut off": (
        cut("data/toy/interactions.parquet"),
        "data info data/toy",
        ("data/toy", "import it again"),
    ),
    "changed by hand": (
        lambda: (
            pl.read_parquet("data/toy/users.parquet")
            .reverse()
            .write_parquet("data/toy/users.parquet")
        ),
        "data info data/toy",
        ("fingerprint", "a file was modified"),
    ),
    "modality of other items": (
        other_items,
        "train --data data/toy --model vbpr --out runs/new",
        ("text.safetensors", "40", "50"),
    ),
    "modality with NaN": (not_finite, "data info data/toy", ("'text'", "NaN", "row")),
    "modality cut off": (
        cut("data/toy/modalities/text.safetensors"),
        "data info data/toy",
        ("text.safetensors", "encode"),
    ),
    "unknown data set": (nothing, "data get ml-100", ("'ml-100'", "did you mean 'ml-10")),
    "no web address": (
        nothing,
        "data get ml-100k --base-url files.org --out data",
        ("http://", "files.org"),
    ),
    "unknown format": (
        nothing,
        "data export data/toy --format recbol --out rb",
        ("'recbol'", "did you mean 'recbole'"),
    ),
    "export of nothing": (nothing, "data export data/gone --out rb", ("data/gone",)),
    # -------------------------------------------------- encode
    "encode nothing": (nothing, "encode data/gone", ("data/gone",)),
    "unknown encoder": (
        nothing,
        "encode data/toy --modality text --encoder tfdif",
        ("'tfdif'", "did you mean 'tfidf'"),
    ),
    "unknown column": (
        nothing,
        "encode data/toy --modality text --encoder tfidf --column titel",
        ("'titel'", "did you mean 'title'"),
    ),
    "column without text": (
        nothing,
        "encode data/toy --modality text --encoder tfidf --column taste",
        ("taste", "title"),
    ),
    "width of zero": (nothing, "encode data/toy --encoder tfidf --dim 0", ("--dim", "'0'")),
    "unknown encoder option": (
        nothing,
        "encode data/toy --encoder tfidf --set min_fd=1",
        ("'min_fd'", "did you mean 'min_df'"),
    ),
    "encoder of another kind": (
        nothing,
        "encode data/toy --modality image --encoder tfidf",
        ("image",),
    ),
    "pictures of none": (nothing, "encode data/toy --modality image", ("image",)),
    "unknown device to encode": (nothing, "encode data/toy --device gpu", ("'gpu'", "cuda")),
    "own features, no file": (
        nothing,
        "encode data/toy --modality own --encoder precomputed --set path=own.parquet",
        ("own.parquet",),
    ),
    "own features for other items": (
        wide_precomputed(["x1", "x2"]),
        "encode data/toy --modality own --encoder precomputed --set path=own.parquet",
        ("x1",),
    ),
    "own features with NaN": (
        wide_precomputed(["i1", "i2"], float("nan")),
        "encode data/toy --modality own --encoder precomputed --set path=own.parquet",
        ("NaN", "i1"),
    ),
    # -------------------------------------------------- train
    "unknown model": (nothing, f"{TRAIN} --model lightgnc", ("'lightgnc'", "mean 'lightgcn'")),
    "unknown model to show": (nothing, "models cm4", ("'cm4'", "did you mean 'cm3'")),
    "train on nothing": (nothing, "train --data data/gone --out runs/new", ("data/gone",)),
    "unknown option": (
        nothing,
        f"{TRAIN} --model bpr --set embeding_size=8",
        ("model bpr", "'embeding_size'", "did you mean 'embedding_size'"),
    ),
    "option out of bounds": (
        nothing,
        f"{TRAIN} --model bpr --set learning_rate=-1",
        ("learning_rate", "greater than 0", "-1", "default"),
    ),
    "option of a wrong type": (
        nothing,
        f"{TRAIN} --model bpr --set epochs=many",
        ("epochs", "'many'", "default"),
    ),
    "option that is no option of the model": (
        nothing,
        f"{TRAIN} --model bpr --set seed=3",
        ("'seed'", "--seed"),
    ),
    "option without a value": (nothing, f"{TRAIN} --model bpr --set epochs", ("key=value",)),
    "unknown variant": (
        nothing,
        f"{TRAIN} --model cm3 --variant only-txt",
        ("'only-txt'", "did you mean 'only-text'"),
    ),
    "no variants": (nothing, f"{TRAIN} --model bpr --variant fast", ("'fast'", "bpr")),
    "no options file": (nothing, f"{TRAIN} --config gone.yaml", ("gone.yaml", "--config")),
    "options file no mapping": (
        csv("- 1\n- 2\n", "bad.yaml"),
        f"{TRAIN} --config bad.yaml",
        ("bad.yaml", "list"),
    ),
    "options file broken": (
        csv("epochs: [1\n", "bad.yaml"),
        f"{TRAIN} --config bad.yaml",
        ("bad.yaml", "line 2"),
    ),
    "options file with a number as key": (
        csv("1: 2\n", "bad.yaml"),
        f"{TRAIN} --model bpr --config bad.yaml",
        ("model bpr", "'1'"),
    ),
    "resume and overwrite": (
        interrupted,
        "train --data data/toy --model bpr --out runs/bpr --resume --overwrite",
        ("--resume", "--overwrite", "both"),
    ),
    "a file as data": (nothing, "data info good.csv", ("good.csv, which is a file",)),
    "a file as run": (nothing, "evaluate good.csv", ("good.csv, which is a file",)),
    "compare the same twice": (nothing, "compare runs/bpr runs/bpr", ("once", "runs/bpr")),
    "cut-offs not measured": (nothing, "compare runs/bpr runs/pop --k 7", ("5, 10", "7")),
    "unknown mask": (nothing, f"{TRAIN} --mask stric", ("'stric'", "did you mean 'strict'")),
    "cut-off of zero": (nothing, f"{TRAIN} --model bpr --k 0,10", ("'0,10'", "at least 1")),
    "cut-off no number": (nothing, f"{TRAIN} --model bpr --k ten", ("'ten'", "10,20")),
    "unknown device": (nothing, f"{TRAIN} --model bpr --device gpu", ("'gpu'", "cuda")),
    "device not here": (nothing, f"{TRAIN} --model bpr --device cuda:99", ("cuda:99",)),
    "unknown precision": (
        nothing,
        f"{TRAIN} --model bpr --precision bf16",
        ("'bf16'", "did you mean 'bf16-mixed'"),
    ),
    "features wanted, none there": (
        without_content,
        f"{TRAIN} --model cm3",
        ("modalit", "encode"),
    ),
    "unknown modality": (
        nothing,
        f"{TRAIN} --model vbpr --set modalities=[txt]",
        ("txt", "text"),
    ),
    "run is there already": (
        nothing,
        "train --data data/toy --model bpr --out runs/bpr",
        ("runs/bpr", "finished run", "--overwrite"),
    ),
    "run was interrupted": (
        interrupted,
        "train --data data/toy --model bpr --out runs/bpr",
        ("runs/bpr", "interrupted", "--resume"),
    ),
    "resume of another run": (
        interrupted,
        "train --data data/toy --model bpr --out runs/bpr --resume --set epochs=3",
        ("option epochs 2", "3", "another experiment", "repeat the options"),
    ),
    "overwrite with a mistake": (
        nothing,
        "train --data data/toy --model vbpr --out runs/bpr --overwrite --set modalities=[txt]",
        ("txt",),
    ),
    "run folder holds other things": (
        other_things("mine"),
        "train --data data/toy --model bpr --out mine",
        ("mine", "other files"),
    ),
    "run folder is a file": (
        a_file("mine"),
        "train --data data/toy --model bpr --out mine",
        ("mine", "file"),
    ),
    # -------------------------------------------------- runs
    "no run": (nothing, "evaluate runs/gone", ("runs/gone", "modalign train")),
    "run half written": (
        interrupted,
        "evaluate runs/bpr",
        ("runs/bpr", "results.json", "--resume"),
    ),
    "run's options broken": (
        csv("model: [", "runs/bpr/config.yaml"),
        "evaluate runs/bpr",
        ("config.yaml", "runs/bpr"),
    ),
    "run's results broken": (
        cut("runs/bpr/results.json"),
        "recommend runs/bpr --user u1",
        ("results.json", "runs/bpr"),
    ),
    "run without a seed": (
        changed("runs/bpr/config.yaml", "seed: 1", "sead: 1"),
        "evaluate runs/bpr",
        ("seed", "runs/bpr"),
    ),
    "weights cut off": (
        cut("runs/bpr/checkpoints/best.safetensors"),
        "evaluate runs/bpr",
        ("best.safetensors", "train it again"),
    ),
    "weights missing": (
        lambda: Path("runs/bpr/checkpoints/best.safetensors").unlink(),
        "evaluate runs/bpr",
        ("best.safetensors",),
    ),
    "weights of another size": (
        changed("runs/bpr/config.yaml", "embedding_size: 64", "embedding_size: 32"),
        "evaluate runs/bpr",
        ("bpr", "best.safetensors"),
    ),
    "data of another run": (
        strangers_data,
        "evaluate runs/bpr --data data/other",
        ("59 of 59 users", "40 of 40 items"),
    ),
    "data gone": (
        lambda: Path("data/toy").rename("data/moved"),
        "evaluate runs/bpr",
        ("data/toy", "--data"),
    ),
    "features changed since": (
        run_that_reads_texts_and_lost_them,
        "evaluate runs/vbpr",
        ("modality", "runs/vbpr"),
    ),
    "unknown split to measure": (
        nothing,
        "evaluate runs/bpr --split tset",
        ("'tset'", "did you mean 'test'"),
    ),
    "unknown candidates": (
        nothing,
        "evaluate runs/bpr --candidates cld",
        ("'cld'", "did you mean 'cold'"),
    ),
    "no cold items": (nothing, "evaluate runs/bpr --candidates cold", ("cold", "test")),
    "unknown mask to measure": (nothing, "evaluate runs/bpr --mask trian", ("mean 'train'",)),
    "compare with nothing": (nothing, "compare runs/bpr runs/gone", ("runs/gone",)),
    "compare other data": (
        run_on_strangers,
        "compare runs/bpr runs/other",
        ("the same test pairs", "other"),
    ),
    "compare other masks": (other_mask, "compare runs/bpr runs/pop", ("mask",)),
    "compare one": (nothing, "compare runs/bpr", ("two", "runs/bpr")),
    "level out of bounds": (nothing, "compare runs/bpr runs/pop --alpha 2", ("--alpha", "'2'")),
    "unknown user": (
        nothing,
        "recommend runs/bpr --user nobody",
        ("users", "'nobody'", "'u0'", "users.parquet"),
    ),
    "two unknown users": (
        nothing,
        "recommend runs/bpr --user u1 --user x --user y",
        ("2 unknown", "'x', 'y'"),
    ),
    "user without a past": (nothing, "recommend runs/bpr --user u59", ("'u59'", "bpr")),
    "unknown item": (nothing, "similar runs/bpr --item nothing", ("items", "'nothing'", "'i0'")),
    "report on nothing": (nothing, "report runs/gone", ("runs/gone",)),
    "report into a folder": (
        nothing,
        "report runs/bpr runs/pop --out data",
        ("data", "folder"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_told_in_three_facts_and_nothing_is_touched(name: str, workshop: Path, cli: Cli) -> None:
    break_it, command, words = CASES[name]
    break_it()
    before = snapshot(workshop)
    got = cli(*command.split())
    assert got.code == 2, got
    assert_three_facts(got.err)
    assert got.out == ""
    missing = [word for word in words if word not in got.err]
    assert not missing, got.err
    assert snapshot(workshop) == before


def assert_three_facts(text: str) -> None:
    """expected ..., got ..., To fix: ..., each with something behind it, and no traceback."""
    assert "Traceback" not in text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    starts = ("Error: expected ", "got ", "To fix: ")
    facts = [next((line for line in lines if line.startswith(one)), "") for one in starts]
    assert all(f.removeprefix(one) for f, one in zip(facts, starts, strict=True)), text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("train --data data/toy --model lightgnc --out runs/new", "did you mean 'lightgcn'?"),
        ("data import table bad.csv --out data/new", "line 3 of bad.csv"),
        ("evaluate runs/bpr", "results.json"),
    ],
)
def test_the_same_from_a_shell(command: str, word: str, workshop: Path) -> None:
    table_with("u1,i2,good")()
    interrupted()
    before = snapshot(workshop)
    got = subprocess.run(
        [sys.executable, "-m", "modalign.cli.main", *command.split()],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert got.returncode == 2
    assert got.stdout == ""
    assert word in got.stderr
    assert_three_facts(got.stderr)
    assert snapshot(workshop) == before


def test_json_does_not_change_how_mistakes_are_told(workshop: Path, cli: Cli) -> None:
    got = cli("evaluate", "runs/gone", "--json")
    assert (got.code, got.out) == (2, "")
    assert_three_facts(got.err)


def test_a_mistake_in_one_of_two_encodings_keeps_the_data_readable(
    workshop: Path, cli: Cli
) -> None:
    got = cli("encode", "data/toy", "--modality", "text", "--modality", "image",
              "--encoder", "tfidf", "--dim", "4", "--force")  # fmt: skip
    assert got.code == 2
    assert json.loads(cli("data", "info", "data/toy", "--json").out)["n_items"] == 40
