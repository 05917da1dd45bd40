"""Every command on small data, for people and as JSON; and what --help says."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from inspect import isfunction, signature
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
import pytest
import typer
import yaml
from calling import Cli
from polars.testing import assert_frame_equal
from rich.console import Console

import modalign
from modalign.cli import main, render
from modalign.core.settings import DEFAULT_SEED
from modalign.data.dataset import Dataset
from modalign.data.sources import SOURCES
from modalign.data.splits import SPLITTERS

RESULT_KEYS = set(
    "model seed data mask best_epoch epochs parameters seconds valid test".split()  # noqa: SIM905
)
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8"
    "cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


def answer(cli: Cli, *words: object) -> Any:
    """The JSON that a command prints, and nothing else on standard output."""
    got = cli(*words, "--json")
    assert got.code == 0, got.err
    return json.loads(got.out)


def shown(cli: Cli, *words: object) -> str:
    """What a command shows to people."""
    got = cli(*words)
    assert got.code == 0, got.err
    assert "Warning" not in got.err
    return got.out


# ------------------------------------------------------------------ data


@pytest.mark.slow
def test_import_of_a_table_with_items_and_pictures(workshop: Path, cli: Cli) -> None:
    Path("items.csv").write_text(
        "item_id,title\n" + "".join(f"i{i},Thing {i}\n" for i in range(12))
    )
    Path("pictures").mkdir()
    Path("pictures/i3.png").write_bytes(PIXEL)
    command = ["data", "import", "table", "good.csv", "--items", "items.csv", "--images",
               "pictures", "--k-core", "2", "--min-rating", "2", "--name", "mine"]  # fmt: skip
    found = answer(cli, *command, "--out", "data/a")
    assert found["name"] == "mine"
    assert found["n_users"] == 12
    assert sum(found["interactions"].values()) <= 12 * 8
    assert found["info"]["split"]["kind"] == "ratio"
    assert {"title", "image"} <= set(found["columns"])
    text = shown(cli, *command, "--out", "data/b")
    assert "interactions" in text
    assert found["fingerprint"] in text
    again = cli(*command, "--out", "data/b", "--overwrite")
    assert "modalign encode data/b" in again.err


@pytest.mark.slow
@pytest.mark.parametrize("split", ["ratio", "leave-one-out", "time", "cold-items", "unseen-users"])
def test_every_split_has_its_options_and_its_seed(split: str, workshop: Path, cli: Cli) -> None:
    command = ["data", "import", "table", "good.csv", "--out", "data/new", "--split", split,
               "--overwrite"]  # fmt: skip
    one = answer(cli, *command, "--seed", "1")
    assert one["info"]["split"]["kind"] == split
    assert {"train", "valid", "test"} <= set(one["interactions"])
    two = answer(cli, *command, "--seed", "2")
    assert (one["fingerprint"] == two["fingerprint"]) == (split in ("time", "leave-one-out"))
    option = {"ratio": "train=1", "time": "train=6"}.get(split, "share=0.4")
    if split != "leave-one-out":
        other = answer(cli, *command, "--seed", "1", "--split-set", option)
        assert other["fingerprint"] != one["fingerprint"]


@pytest.mark.parametrize("kind", ["leave_one_out", "cold_items", "unseen_users"])
def test_a_split_may_be_written_with_underscores(kind: str, workshop: Path, cli: Cli) -> None:
    command = ["data", "import", "table", "good.csv", "--out", "data/new", "--overwrite"]
    command.append("--split")
    one = answer(cli, *command, kind)
    assert one["info"]["split"]["kind"] == kind.replace("_", "-")
    assert answer(cli, *command, kind.replace("_", "-"))["fingerprint"] == one["fingerprint"]


def test_a_file_and_its_frame_make_the_same_data_set(workshop: Path, cli: Cli) -> None:
    found = answer(cli, "data", "import", "table", "good.csv", "--out", "data/new")
    assert modalign.load(pl.read_csv("good.csv")).fingerprint == found["fingerprint"]
    assert modalign.load("data/new").fingerprint == found["fingerprint"]
    assert found["info"]["split"]["seed"] == DEFAULT_SEED


@pytest.mark.parametrize("split", ["leave-one-out", "leave_one_out", "ratio"])
@pytest.mark.slow
def test_append_takes_the_splits_that_import_takes(split: str, workshop: Path, cli: Cli) -> None:
    cli("data", "import", "table", "good.csv", "--out", "data/new")
    rows = [("u1", "new", "click", 2_000_000_000), ("u2", "new", "like", 2_000_000_000)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "kind", "time"], orient="row")
    frame.write_parquet("feedback.parquet")
    command = ["data", "append", "data/new", "feedback.parquet", "--out", "data/more"]
    found = answer(cli, *command, "--split", split)
    assert found["info"]["split"]["kind"] == split.replace("_", "-")
    assert found["info"]["split"]["seed"] == DEFAULT_SEED


def test_import_help_lists_what_is_registered(cli: Cli) -> None:
    text = " ".join(cli("data", "import", "--help").out.split())
    for name in [*SOURCES, *SPLITTERS]:
        assert name in text
    assert "min_documents=1" in text
    assert "truth=0.2" in text


def test_every_command_has_the_same_default_seed() -> None:
    def seeds(command: click.Command) -> Iterator[object]:
        yield from (one.default for one in command.params if one.name == "seed")
        for inner in getattr(command, "commands", {}).values():
            yield from seeds(inner)

    found = [one for one in seeds(typer.main.get_command(main.app)) if one is not None]
    assert len(found) > 3
    assert set(found) == {DEFAULT_SEED}


def test_every_public_function_has_the_same_default_seed() -> None:
    functions = {name: getattr(modalign, name) for name in modalign.__all__}
    found = {
        name: signature(one).parameters["seed"].default
        for name, one in functions.items()
        if isfunction(one) and "seed" in signature(one).parameters
    }
    assert found
    assert set(found.values()) == {DEFAULT_SEED}


def test_import_of_a_movielens_folder(workshop: Path, cli: Cli) -> None:
    Path("ml").mkdir()
    rows = [
        f"{u}\t{1 + (u + j) % 9}\t{3 + j % 3}\t{900 + j}" for u in range(1, 13) for j in range(7)
    ]
    Path("ml/u.data").write_text("\n".join(rows) + "\n")
    genres = "|".join(["0"] * 18 + ["1"])
    Path("ml/u.item").write_text(
        "".join(f"{i}|Film {i} (1999)|01-Jan-1999||http://x|{genres}\n" for i in range(1, 10)),
        encoding="latin-1",
    )
    Path("ml/u.user").write_text("".join(f"{u}|30|F|writer|1000\n" for u in range(1, 13)))
    found = answer(cli, "data", "import", "movielens", "ml", "--out", "data/ml", "--min-rating", 4,
                   "--k-core", 2, "--split", "ratio", "--seed", 1)  # fmt: skip
    assert found["n_users"] == 12
    assert "title" in found["columns"]
    steps = [one["step"] for one in found["info"]["filters"]]
    assert len(steps) >= 3
    assert "Remaining after each filter" in shown(cli, "data", "info", "data/ml")


def test_import_of_a_given_split_keeps_it(workshop: Path, cli: Cli) -> None:
    Path("parts").mkdir()
    for part, shift in (("train", 0), ("valid", 6), ("test", 7)):
        n = 6 if part == "train" else 1
        rows = [f"u{u},i{(u + shift + j) % 9}" for u in range(8) for j in range(n)]
        Path(f"parts/{part}.csv").write_text("\n".join(["user_id,item_id", *rows, ""]))
    found = answer(cli, "data", "import", "split", "parts", "--out", "data/parts")
    assert found["interactions"] == {"train": 48, "valid": 8, "test": 8}
    assert found["info"]["split"]["kind"] == "given"


@pytest.mark.slow
def test_import_of_citeulike_and_its_words(workshop: Path, cli: Cli) -> None:
    Path("cul").mkdir()
    Path("cul/users.dat").write_text(
        "".join("5 " + " ".join(str((u + j) % 10) for j in range(5)) + "\n" for u in range(8))
    )
    Path("cul/mult.dat").write_text("".join(f"2 {i % 6}:2 {(i + 1) % 6}:1\n" for i in range(10)))
    Path("cul/vocabulary.dat").write_text("graph\ntensor\nneural\nmusic\nlearning\nimage\n")
    found = answer(cli, "data", "import", "citeulike", "cul", "--out", "data/cul", "--seed", 1)
    assert (found["n_users"], found["n_items"]) == (8, 10)
    command = ["encode", "data/cul", "--modality", "text", "--encoder", "tfidf", "--dim", 3]
    (report,) = answer(cli, *command)
    assert (report["modality"], report["n"], report["skipped"]) == ("text", 10, False)
    (again,) = answer(cli, *command)
    assert again["skipped"]
    assert "existed already, nothing was done" in shown(cli, *command)
    (forced,) = answer(cli, *command, "--force")
    assert not forced["skipped"]
    assert answer(cli, "data", "info", "data/cul")["modalities"]["text"]["width"] == 3


@pytest.mark.slow
def test_encode_own_numbers_and_own_name(workshop: Path, cli: Cli) -> None:
    ids = [f"i{i}" for i in range(40)]
    frame = pl.DataFrame({"item_id": ids, "a": np.arange(40.0), "b": np.ones(40)})
    frame.write_parquet("own.parquet")
    (report,) = answer(cli, "encode", "data/toy", "--modality", "own", "--encoder", "precomputed",
                       "--set", "path=own.parquet")  # fmt: skip
    assert report["n_missing"] == 0
    (words,) = answer(cli, "encode", "data/toy", "--modality", "plot", "--column", "description",
                      "--encoder", "tfidf", "--dim", "2")  # fmt: skip
    assert words["modality"] == "plot"
    assert {"own", "plot"} <= set(answer(cli, "data", "info", "data/toy")["modalities"])


def test_drop_modality(workshop: Path, cli: Cli) -> None:
    before = {path.stem for path in Path("data/toy/modalities").iterdir()}
    missed = cli("data", "drop-modality", "data/toy", "image", "imgae")
    assert missed.code == 2
    assert "did you mean 'image'" in missed.err
    assert {path.stem for path in Path("data/toy/modalities").iterdir()} == before
    found = answer(cli, "data", "drop-modality", "data/toy", "image")
    assert found == {"dropped": ["image"], "left": sorted(before - {"image"})}
    assert set(answer(cli, "data", "info", "data/toy")["modalities"]) == before - {"image"}


def test_info_shows_kind_width_and_share_of_modalities(workshop: Path, cli: Cli) -> None:
    data = Dataset.load("data/toy")
    pictures = data.modalities["image"]
    present = np.arange(40) < 37
    features = np.where(present[:, None], pictures.features, 0).astype(np.float32)
    provenance = {"encoder": "mine", "kind": "image", "bag": False}
    half = replace(pictures, features=features, present=present, provenance=provenance)
    data.with_modality(half).save("data/toy")
    found = answer(cli, "data", "info", "data/toy")["modalities"]["image"]
    assert (found["kind"], found["width"]) == ("image", pictures.dim)
    assert (found["present"], found["missing"]) == (37 / 40, 3)
    (line,) = [one for one in shown(cli, "data", "info", "data/toy").splitlines() if "mine" in one]
    assert line.replace("│", " ").split() == ["image", "image", "mine", str(half.dim), "92.5%", "3"]


def test_encode_without_a_name_takes_what_the_encoder_reads(workshop: Path, cli: Cli) -> None:
    (report,) = answer(cli, "encode", "data/toy", "--encoder", "tfidf", "--dim", "3")
    assert report["modality"] == "text"


def test_info(workshop: Path, cli: Cli) -> None:
    found = answer(cli, "data", "info", "data/toy")
    assert {"name", "fingerprint", "n_users", "n_items", "interactions", "modalities"} <= set(found)
    assert (found["n_users"], found["n_items"], found["synthetic"]) == (60, 40, True)
    text = shown(cli, "data", "info", "data/toy")
    assert "toy (synthetic)" in text
    assert all(str(n) in text for n in found["interactions"].values())


@pytest.mark.slow
def test_get_lists_and_fetches(workshop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from modalign.data import download

    listed = answer(cli, "data", "get")
    assert {"name", "source", "licence", "url"} <= set(listed[0])
    text = shown(cli, "data", "get")
    assert "ml-100k" in text
    assert max(map(len, text.split("amazon-2014")[0].splitlines())) <= 80

    def fetch(name: str, out: Path, base_url: str | None, progress: Any) -> Any:
        progress(5, 10)
        return download.Download(name, out / name, "movielens", (), "mine", "me", ("unverified",))

    monkeypatch.setattr(download, "get", fetch)
    assert answer(cli, "data", "get", "ml-100k", "--out", "raw")["folder"] == "raw/ml-100k"
    told = shown(cli, "data", "get", "ml-100k", "--out", "raw")
    assert all(one in told for one in ("licence: mine", "cite: me", "note: unverified"))


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "file"), [("recbole", "*.inter"), ("mmrec", "*.inter")])
def test_export_can_be_imported_again(layout: str, file: str, workshop: Path, cli: Cli) -> None:
    found = answer(cli, "data", "export", "data/toy", "--format", layout, "--out", "there")
    assert found["format"] == layout
    folder = Path(found["folder"])
    assert list(folder.glob(file))
    again = answer(cli, "data", "import", layout, folder, "--out", "data/again")
    assert again["interactions"] == answer(cli, "data", "info", "data/toy")["interactions"]
    assert "written to there2" in shown(
        cli, "data", "export", "data/toy", "--format", layout, "--out", "there2"
    )


# ------------------------------------------------------------------ models and training


@pytest.mark.slow
def test_models(workshop: Path, cli: Cli) -> None:
    found = answer(cli, "models")
    names = [one["name"] for one in found]
    assert {"popularity", "bpr", "lightgcn", "cm3"} <= set(names)
    assert all({"name", "family", "paper", "needs"} <= set(one) for one in found)
    text = shown(cli, "models")
    assert all(name in text for name in names)
    assert max(map(len, text.splitlines())) <= 80
    for name in names:
        one = answer(cli, "models", name)
        assert all(option["help"] for option in one["options"]), name
        page = shown(cli, "models", name)
        assert one["paper"] in page
        assert all(option["name"] in page for option in one["options"])
        assert all(variant in page for variant in one["variants"])


def test_models_are_filtered(cli: Cli) -> None:
    def names(*words: str) -> set[str]:
        return {one["name"] for one in answer(cli, "models", *words)}

    every = names()
    content = names("--needs", "content")
    assert {"cm3", "vbpr", "bandvae"} <= content
    assert names("--needs", "text") == content == names("--family", "multimodal")
    assert names("--needs", "ids") == every - content
    assert names("--needs", "history") >= {"ease", "multivae", "bandvae"}
    assert "bpr" not in names("--needs", "history")
    # BM3 and PromptMM read content in training alone.
    assert content - names("--cold-items") >= {"bm3", "promptmm"}
    assert names("--unseen-users", "--cold-items") == {"bandvae"}
    got = shown(cli, "models", "--family", "baseline")
    assert "ease" in got
    assert "cm3" not in got


@pytest.mark.slow
def test_train_judges_the_mechanism_in_words(workshop: Path, cli: Cli) -> None:
    words = ("train", "--data", "data/toy", "--model", "mmssl", "--set", "epochs=1")
    got = cli(*words, "--out", "runs/mmssl")
    assert "is idle" in got.err
    lines = got.out.partition("Is the mechanism alive? mmssl at epoch 1")[2].splitlines()
    assert max(map(len, got.out.splitlines())) <= 80
    found = answer(cli, *words, "--out", "runs/again")["vital_signs"]
    for name, value in found.items():
        (line,) = (one for one in lines if one.strip().startswith(name))
        bound, side = line.split()[-2:]
        assert line.split()[-3] == f"{value:.3g}"
        assert side == ("above" if value >= float(bound) else "below")


def test_train_takes_variant_then_file_then_set(workshop: Path, cli: Cli) -> None:
    Path("my.yaml").write_text("epochs: 1\nn_layers: 1\nembedding_size: 8\n")
    found = answer(cli, "train", "--data", "data/toy", "--model", "cm3", "--out", "runs/cm3",
                   "--variant", "only-text", "--config", "my.yaml", "--set", "embedding_size=4",
                   "--set", "k=3", "--k", "5,20", "--mask", "train", "--seed", "7")  # fmt: skip
    assert set(found) >= RESULT_KEYS
    assert (found["model"], found["seed"], found["mask"], found["epochs"]) == ("cm3", 7, "train", 1)
    assert {"recall@5", "recall@20", "ndcg@20"} <= set(found["test"])
    assert "recall@10" not in found["test"]
    config = yaml.safe_load(Path("runs/cm3/config.yaml").read_text())
    options = config["options"]
    assert (options["embedding_size"], options["n_layers"], options["epochs"]) == (4, 1, 1)
    assert list(options["modalities"]) == ["text"]
    assert json.loads(Path("runs/cm3/results.json").read_text()) == found


@pytest.mark.slow
def test_train_encodes_what_a_model_reads_where_nothing_is_encoded(
    workshop: Path, cli: Cli
) -> None:
    toy = Dataset.load("data/toy")
    replace(toy, modalities={}, folder=None).save(Path("data/bare"))
    command = ["train", "--data", "data/bare", "--seed", "1", "--set", "epochs=1"]
    told = cli(*command, "--model", "bpr", "--out", "runs/ids")
    assert told.code == 0
    assert "encoding" not in told.err
    told = cli(*command, "--model", "bandvae", "--out", "runs/words")
    assert told.code == 0, told.err
    assert "no modality yet; encoding text with words" in told.err
    text = Dataset.load("data/bare").modalities["text"]
    assert text.provenance["encoder"] == "words"
    assert "shoe" in text.provenance["words"]
    told = cli(*command, "--model", "bandvae", "--out", "runs/again")
    assert "encoding" not in told.err
    replace(toy, modalities={}, item_table=toy.item_table.select("item_id"), folder=None).save(
        Path("data/ids")
    )
    told = cli("train", "--data", "data/ids", "--model", "cm3", "--out", "runs/none")
    assert told.code == 2
    assert "modalign encode" in told.err
    assert not Path("runs/none").exists()


@pytest.mark.slow
def test_train_tells_people_what_came_out(workshop: Path, cli: Cli) -> None:
    command = ["train", "--data", "data/toy", "--model", "popularity", "--out", "runs/new"]
    got = cli(*command)
    assert got.code == 0
    assert "popularity on toy (synthetic), seed 1" in got.out
    assert "recall" in got.out
    assert "modalign recommend runs/new" in got.err
    assert cli(*command).code == 2
    assert cli(*command, "--overwrite").code == 0


def test_resume_ends_where_an_uninterrupted_run_does(workshop: Path, cli: Cli) -> None:
    before = json.loads(Path("runs/bpr/results.json").read_text())
    Path("runs/bpr/results.json").unlink()
    found = answer(cli, "train", "--data", "data/toy", "--model", "bpr", "--out", "runs/bpr",
                   "--set", "epochs=2", "--k", "5,10", "--resume")  # fmt: skip
    assert found["test"] == before["test"]


# ------------------------------------------------------------------ results


@pytest.mark.slow
def test_evaluate(workshop: Path, cli: Cli) -> None:
    found = answer(cli, "evaluate", "runs/bpr", "--mask", "train", "--k", "3,10", "--groups")
    assert {"run", "model", "data", "split", "mask", "users", "metrics", "groups"} <= set(found)
    assert (found["mask"], found["split"], found["users"]) == ("train", "test", 59)
    assert {"recall@3", "ndcg@10"} <= set(found["metrics"])
    assert {one["group"] for one in found["groups"]["item popularity"]} == {"head", "tail"}
    strict = answer(cli, "evaluate", "runs/bpr", "--k", "10")
    told = json.loads(Path("runs/bpr/results.json").read_text())
    assert strict["metrics"]["recall@10"] == pytest.approx(told["test"]["recall@10"])
    text = shown(cli, "evaluate", "runs/bpr", "--groups", "--split", "valid")
    assert "bpr: valid, mask strict, 59 users" in text
    assert max(map(len, text.splitlines())) <= 80


def test_compare(workshop: Path, cli: Cli) -> None:
    found = answer(cli, "compare", "runs/bpr", "runs/pop")
    assert found["runs"] == ["bpr", "pop"]
    assert set(found["metrics"]["bpr"]) == set(found["metrics"]["pop"])
    assert {"metric", "first", "second", "difference", "corrected"} <= set(found["pairs"][0])
    assert set(found["winner"].values()) <= {"bpr", "pop", None}
    text = shown(cli, "compare", "runs/bpr", "runs/pop", "--k", "5")
    assert "recall@5" in text
    assert "recall@10" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
def test_compare_averages_seeds(workshop: Path, cli: Cli) -> None:
    answer(cli, "train", "--data", "data/toy", "--model", "bpr", "--out", "runs/bpr-2", "--seed",
           "2", "--set", "epochs=2", "--k", "5,10")  # fmt: skip
    found = answer(cli, "compare", "runs/bpr", "runs/pop", "runs/bpr-2")
    assert found["runs"] == ["bpr (2 seeds)", "pop"]
    each = [
        json.loads(Path(f"runs/{name}/results.json").read_text())["test"]["recall@10"]
        for name in ("bpr", "bpr-2")
    ]
    assert found["metrics"]["bpr (2 seeds)"]["recall@10"] == pytest.approx(np.mean(each))
    assert {pair["between_seeds"] for pair in found["pairs"]} == {None}
    runs = ["runs/bpr", "runs/pop", "runs/bpr-2"]
    assert "p seeds" not in shown(cli, "compare", *runs)
    answer(cli, "train", "--data", "data/toy", "--model", "popularity", "--out", "runs/pop-2",
           "--seed", "2", "--k", "5,10")  # fmt: skip
    between = answer(cli, "compare", *runs, "runs/pop-2")["pairs"]
    p = next(one for one in between if one["metric"] == "recall@10")["corrected_between_seeds"]
    text = shown(cli, "compare", *runs, "runs/pop-2")
    assert "p seeds" in text
    test = text[text.index("recall@10: paired") :].splitlines()[3]
    assert test.split()[-1] == f"{p:.2g}"
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
def test_compare_of_many_runs_is_one_row_for_each_sorted(workshop: Path, cli: Cli) -> None:
    others = ["ease", "itemknn", "lightgcn"]
    for name in others:
        answer(cli, "train", "--data", "data/toy", "--model", name, "--out", f"runs/many/{name}",
               "--k", "5,10")  # fmt: skip
    runs = ["runs/bpr", "runs/pop", *(f"runs/many/{name}" for name in others)]
    found = answer(cli, "compare", *runs)
    text = shown(cli, "compare", *runs, "--metric", "ndcg@10")
    assert max(map(len, text.splitlines())) <= 80
    lines = text.split("\n\n")[0].splitlines()
    assert lines[1].split() == ["run", "ndcg@10"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[3:]}
    value = {name: found["metrics"][name]["ndcg@10"] for name in found["runs"]}
    assert list(rows) == sorted(value, key=lambda name: -value[name])
    for name, cells in rows.items():
        assert cells[0] == f"{value[name]:.4f}"
        only = found["winner"]["ndcg@10"] == name
        shares = name in found["top"]["ndcg@10"]
        assert cells[1:] == (["*"] if only else ["="] if shares else [])
    best = next(iter(rows))
    tests = text[text.index("ndcg@10: paired") :].split("\n\n")[0].splitlines()[3:]
    assert sorted(line.split()[1] for line in tests) == sorted(set(found["runs"]) - {best})
    assert {line.split()[0] for line in tests} == {best}


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@x", "ndgc@10", "@10"])
def test_compare_names_a_metric_that_is_none(metric: str, workshop: Path, cli: Cli) -> None:
    got = cli("compare", "runs/bpr", "runs/pop", "--metric", metric)
    assert got.code == 2
    assert "metric" in got.err
    assert repr(metric) in got.err


def test_evaluations_under_another_mask_are_compared(workshop: Path, cli: Cli) -> None:
    got = cli("compare", "runs/bpr", "runs/pop", "--mask", "train")
    assert got.code == 2
    assert "modalign evaluate RUN --mask train" in got.err
    for run in ("runs/bpr", "runs/pop"):
        measured = answer(cli, "evaluate", run, "--mask", "train", "--k", "10")
    found = answer(cli, "compare", "runs/bpr", "runs/pop", "--mask", "train")
    assert found["mask"] == "train"
    assert found["metrics"]["pop"]["ndcg@10"] == measured["metrics"]["ndcg@10"]


@pytest.mark.slow
def test_recommend(workshop: Path, cli: Cli) -> None:
    found = answer(cli, "recommend", "runs/bpr", "--user", "u1", "--user", "u2", "-k", "4")
    assert [one["user"] for one in found] == ["u1", "u2"]
    for one in found:
        assert [row["rank"] for row in one["recommended"]] == [1, 2, 3, 4]
        assert {"item_id", "score", "title", "hit"} <= set(one["recommended"][0])
        before = {row["item_id"] for row in one["liked"]}
        assert len(before) == 8
        assert not before & {row["item_id"] for row in one["recommended"]}
    text = shown(cli, "recommend", "runs/bpr", "--user", "u1", "-k", "20")
    assert "liked before (8)" in text
    assert "blue [hat] no. i" in text  # square brackets are no markup
    for rank, row in enumerate(found[0]["recommended"], start=1):
        assert re.search(rf"^ +{rank} .*{re.escape(row['title'])} .*{row['score']:.3f}", text, re.M)
    assert max(map(len, text.splitlines())) <= 80
    everything = answer(cli, "recommend", "runs/bpr", "--user", "u1", "-k", "40", "--keep-seen")
    assert len(everything[0]["recommended"]) == 40


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_recommend_writes_lists_of_some_and_of_all(
    ending: str, workshop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalign.experiments.fitted import FittedModel

    read = pl.read_csv if ending == "csv" else pl.read_parquet
    every = FittedModel.recommend_all
    monkeypatch.setattr(FittedModel, "recommend_all", lambda *a: every(*a, block=7))
    told = answer(cli, "recommend", "runs/bpr", "--all", "-k", "3", "--out", f"all.{ending}")
    frame = read(f"all.{ending}")
    assert frame.columns == ["user_id", "rank", "item_id", "score", "title"]
    assert told["rows"] == len(frame) == 3 * frame["user_id"].n_unique()
    shown(cli, "recommend", "runs/bpr", "--user", "u2", "-k", "3", "--out", f"one.{ending}")
    one = read(f"one.{ending}")
    # Another block of users: the last bits of the scores may differ.
    assert_frame_equal(one, frame.filter(pl.col("user_id") == "u2"), rel_tol=1e-4)
    listed = answer(cli, "recommend", "runs/bpr", "--user", "u2", "-k", "3")[0]["recommended"]
    assert [row["item_id"] for row in listed] == one["item_id"].to_list()


def test_recommend_shows_ids_beside_titles(workshop: Path, cli: Cli) -> None:
    listed = answer(cli, "recommend", "runs/bpr", "--user", "u2", "-k", "3")[0]["recommended"]
    # A user is listed once, however often named.
    text = shown(cli, "recommend", "runs/bpr", "--user", "u2", "--user", "u2", "-k", "3")
    assert text.count("bpr for user u2") == 1
    lines = text.splitlines()[3:6]
    for row, line in zip(listed, lines, strict=True):
        assert line.split()[:2] == [str(row["rank"]), row["item_id"]]
        assert row["title"][:10] in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "a user with --user ID, one of 60 such as"),
        (("--all",), "--all without --out"),
        (("--all", "--user", "u1", "--out", "l.csv"), "both"),
        (("--all", "--out", "l.txt"), "ends with .csv or .parquet"),
    ],
)
def test_recommend_asks_for_whom(
    words: tuple[str, ...], told: str, workshop: Path, cli: Cli
) -> None:
    got = cli("recommend", "runs/bpr", *words)
    assert got.code == 2
    assert told in got.err
    assert not list(Path().glob("l.*"))


BAD = "\x1b]0;owned\x07 \x9b31m red \u202eshoe"
ABOUT = ["linen \x1b shirt", "running shoe", "enamel mug"] * 4


@pytest.mark.slow
def test_what_a_terminal_obeys_is_shown_as_an_escape(workshop: Path, cli: Cli) -> None:
    pairs = [(f"u{u}{BAD}", f"i{(u * 3 + j) % 12}{BAD}") for u in range(12) for j in range(8)]
    pl.DataFrame(pairs, ["user_id", "item_id"], orient="row").write_parquet("bad.parquet")
    ids = [f"i{n}{BAD}" for n in range(12)]
    titles = pl.DataFrame({"item_id": ids, "title": [BAD] * 12, "about": ABOUT, BAD: ids})
    titles.write_parquet("items.parquet")
    Path("rows.csv").write_text(f"user_id,item_id,rating\na,b,{BAD}\n{BAD},,1\n")
    table = ["data", "import", "table"]
    seen = [
        cli(*table, "bad.parquet", "--items", "items.parquet", "--name", BAD, "--out", "bad"),
        cli(*table, "rows.csv", "--out", "none"),
        cli(*table, f"[b]{BAD}.csv", "--out", "none"),
        cli("data", "info", "bad"),
        cli("train", "--data", "bad", "--model", "popularity", "--out", f"runs/{BAD}"),
        cli("train", "--data", "bad", "--model", "ease", "--out", "runs/bad"),
        cli("compare", f"runs/{BAD}", "runs/bad"),
        cli("recommend", "runs/bad", "--user", f"u1{BAD}"),
        cli("recommend", "runs/bad", "--user", f"u1{BAD}", "--json"),
        cli("recommend", "runs/bad"),
        cli("similar", "runs/bad", "--item", f"i1{BAD}"),
        cli("recommend", "runs/bad", "--user", BAD),
        cli("describe", "bad"),
        cli("describe", "bad", "--show", "2"),
        cli("train", "--data", "bad", "--model", BAD, "--out", "none"),
        cli(BAD),
    ]
    assert [one.code for one in seen] == [0, 2, 2, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0, 0, 2, 2], seen
    for one in seen:
        assert not set("\x1b\x07\x9b\u202e") & set(one.out + one.err), one
    assert "\\x1b]0;owned" in seen[7].out
    # JSON has escapes of its own, so that a program reads what was there.
    assert json.loads(seen[8].out)[0]["recommended"][0]["title"] == BAD


def test_a_message_is_shown_without_what_a_terminal_obeys(cli: Cli) -> None:
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(render, "err", Console(file=printed, width=70))
        with render.show_logs(logging.INFO):
            logging.getLogger("modalign.data").warning("item %s has no title", BAD)
    assert not set("\x1b\x07\x9b\u202e") & set(printed.getvalue())
    assert "\\x1b]0;owned" in printed.getvalue()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian"], "train"),
        (["data", "improt"], "import"),
        (["train", "--modle", "bpr"], "--model"),
        (["train", "--data", "d", "--model", "lightgnc", "--out", "x"], "lightgcn"),
        (["train", "--data", "d", "--model", "bpr", "--set", "epoch=3", "--out", "x"], "epochs"),
        (["data", "import", "tabel", "good.csv", "--out", "x"], "table"),
        (["data", "import", "table", "good.csv", "--user", "userid", "--out", "x"], "user_id"),
        (["data", "import", "table", "good.csv", "--time", "raiting", "--out", "x"], "rating"),
        (["compare", "runs/bpr", "runs/pop", "--metric", "recal@10"], "recall@10"),
        (["evaluate", "runs/bpr", "--mask", "stric"], "strict"),
    ],
)
def test_the_nearest_name_is_suggested(
    words: list[str], meant: str, workshop: Path, cli: Cli
) -> None:
    got = cli(*words)
    assert got.code == 2
    assert f"did you mean {meant!r}?" in got.err


@pytest.mark.slow
def test_python_m_is_the_command() -> None:
    for name in ("modalign", "modalign_serve"):
        got = subprocess.run(
            [sys.executable, "-m", name, "--version"], capture_output=True, text=True, check=True
        )
        assert got.stdout.split()[0] == name.replace("_", "-")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "typed", "completed"),
    [
        ("modalign", "modalign rec", "recommend"),
        ("modalign", "modalign train --mod", "--model"),
        ("modalign_serve", "modalign-serve fee", "feedback"),
    ],
)
def test_a_shell_completes_commands(program: str, typed: str, completed: str) -> None:
    name = program.upper()
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    got = subprocess.run(
        [sys.executable, "-m", program],
        env={**os.environ, f"_{name}_COMPLETE": "complete_bash", **words},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert got.stdout.split() == [completed]


@pytest.mark.slow
def test_similar(workshop: Path, cli: Cli) -> None:
    found = answer(cli, "similar", "runs/bpr", "--item", "i3", "-k", "3")
    assert [row["rank"] for row in found] == [1, 2, 3]
    assert "i3" not in [row["similar_item_id"] for row in found]
    assert "(item i3)" in shown(cli, "similar", "runs/bpr", "--item", "i3", "-k", "3")


@pytest.mark.slow
def test_report(workshop: Path, cli: Cli) -> None:
    found = answer(cli, "report", "runs/bpr", "runs/pop", "--out", "two.html", "--users", "3")
    page = Path(found["report"]).read_text()
    assert found["bytes"] == Path("two.html").stat().st_size
    assert "<html" in page
    assert not re.search(r"""(src|href)=["']https?:""", page)
    assert "written to one.html" in shown(cli, "report", "runs/bpr", "--out", "one.html")


def test_data_that_moved_are_named(workshop: Path, cli: Cli) -> None:
    Path("data/toy").rename("data/moved")
    found = answer(cli, "evaluate", "runs/bpr", "--data", "data/moved", "--k", "5")
    assert found["users"] == 59


# ------------------------------------------------------------------ help


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for sub, one in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {sub}", one)

    yield from walk("modalign", typer.main.get_command(main.app))


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_and_option(name: str, cli: Cli) -> None:
    command = COMMANDS[name]
    assert command.help
    assert len(command.help.split()) > 4
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name}"
    got = cli(*name.split()[1:], "--help")
    assert got.code == 0
    first = command.help.replace("`", "").split(".")[0].split()
    assert " ".join(first[:6]) in " ".join(got.out.split())
    if not hasattr(command, "commands"):
        assert "Example" in got.out
        # A service has no result to print: it runs until it is stopped, and logs in JSON.
        assert ("--json" in got.out) != (name == "modalign serve")


def test_the_commands_that_were_promised_are_there() -> None:
    promised = (
        "data import", "data info", "data get", "data export", "encode", "models", "train",
        "evaluate", "compare", "recommend", "similar", "report", "demo", "distill",
        "sweep", "ablate", "profile", "figures",
    )  # fmt: skip
    assert {f"modalign {one}" for one in promised} <= set(COMMANDS)


def test_commands_and_options_in_the_readme_exist() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    lines = re.findall(r"^\s*(?:\$ )?modalign (.+)$", readme.read_text(), re.MULTILINE)
    for line in lines:
        words = line.split("#")[0].replace("\\", "").split()
        name = "modalign"
        while words and f"{name} {words[0]}" in COMMANDS:
            name += f" {words.pop(0)}"
        assert name != "modalign", line
        known = {one for p in COMMANDS[name].params for one in p.opts} | {"--help"}
        assert {w.split("=")[0] for w in words if w.startswith("-")} <= known, line


def test_without_a_command_help_is_shown(cli: Cli) -> None:
    got = cli()
    assert "Usage: modalign" in got.out + got.err


# ------------------------------------------------------------------ speed of start


@pytest.mark.slow
def test_help_does_not_wait_for_heavy_libraries() -> None:
    code = (
        "import sys; sys.argv = ['modalign', {args}]\n"
        "from modalign.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'polars', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    for args in ("'--help'", "'models', '--help'"):
        got = subprocess.run(
            [sys.executable, "-c", code.format(args=args)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ast.literal_eval(got.stdout.strip().splitlines()[-1]) == [], args


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), OSError(28, "No space left", "x.bin")])
def test_a_stop_and_a_full_disk_end_in_words(
    raised: BaseException, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalign.data.dataset import Dataset

    def fail(folder: Path) -> None:
        raise raised

    monkeypatch.setattr(Dataset, "load", fail)
    got = cli("data", "info", "somewhere")
    if isinstance(raised, OSError):
        assert got.code == 2
        assert "x.bin: No space left" in got.err
        assert "enough free space" in got.err
    else:
        assert got.code == 130
    assert "Traceback" not in got.err


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), OSError(28, "No space left", "x.bin")])
def test_training_that_is_stopped_says_what_is_kept_and_goes_on(
    raised: BaseException, workshop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalign.train.callbacks import JsonLines

    words = ("train", "--data", "data/toy", "--model", "bpr", "--out", "runs/new", "--set",
             "epochs=4", "--k", "5")  # fmt: skip

    def fail(self: object, record: object, state: object) -> None:
        raise raised

    with monkeypatch.context() as broken:
        broken.setattr(JsonLines, "on_epoch", fail)
        got = cli(*words)
    assert got.code == (2 if isinstance(raised, OSError) else 130)
    told = " ".join(got.err.split())
    assert "training is kept up to epoch 0, of 1 done" in told
    assert "to go on, repeat the command with --resume (the run is in runs/new)" in told
    assert "Traceback" not in got.err
    assert answer(cli, *words, "--resume")["epochs"] == 4
