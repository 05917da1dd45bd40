"""`modalign distill`, and the sweep and the ablation of distillations, from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from calling import Cli, snapshot

from modalign.data.dataset import Dataset
from modalign.distillation.plan import VARIANTS
from modalign.experiments.fit import fit, load_model
from modalign.export.export_run import export_run
from modalign.report import style
from modalign.report.paper_figures import flows
from modalign.testing.toy import toy_dataset

QUICK = ["--set", "epochs=2", "--set", "embedding_size=8", "--logit", "sort", "--k", "5,10"]
DISTILL = ["distill", "--data", "data/toy"]


@pytest.fixture(scope="session")
def school(built: Path) -> Path:
    """runs/bpr, runs/pop and vectors/ as teachers, and runs/tarec, a finished distillation."""
    from modalign.distillation import run as distilling
    from modalign.experiments.options import RunOptions

    data = Dataset.load(built / "data" / "toy")
    export_run(load_model(built / "runs" / "bpr"), built / "vectors", adapter=False)
    options = {"epochs": 2, "embedding_size": 8, "logit": "sort"}
    out, run = built / "runs" / "tarec", RunOptions(ks=[5, 10])
    distilling.distill(built / "runs" / "bpr", data, out=out, run=run, **options)
    return built


@pytest.fixture
def shop(school: Path, workshop: Path) -> Path:
    """A copy of all that, and the working folder."""
    for part in ("vectors", "runs/tarec"):
        if not (workshop / part).is_dir():
            shutil.copytree(school / part, workshop / part)
    return workshop


def answer(cli: Cli, *words: object) -> Any:
    got = cli(*words, "--json")
    assert got.code == 0, got.err
    return json.loads(got.out)


def config_of(folder: str) -> dict[str, Any]:
    return dict(yaml.safe_load(Path(folder, "config.yaml").read_text()))


def compared(text: str) -> list[str]:
    """The runs of the first table of a comparison, one a row."""
    lines = text.splitlines()
    head = next(at for at, line in enumerate(lines) if line.split()[:1] == ["run"])
    rows = lines[head + 2 :]
    return [line.split()[0] for line in rows[: rows.index("")]]


# ------------------------------------------------------------------ what it makes and shows


@pytest.mark.slow
def test_teacher_assistant_and_student_side_by_side(shop: Path, cli: Cli) -> None:
    got = cli(*DISTILL, "--teacher", "runs/bpr", "--out", "runs/new", *QUICK, "--seed", 3)
    assert got.code == 0, got.err
    assert sorted(compared(got.out)) == ["assistant", "bpr", "student"]
    assert "recall@10" in got.out
    assert "student: " in got.out
    assert "the student: runs/new/student" in got.out
    assert {path.name for path in Path("runs/new").iterdir()} == {
        "assistant", "student", "teacher.json"
    }  # fmt: skip
    for stage in ("assistant", "student"):
        config = config_of(f"runs/new/{stage}")
        assert (config["seed"], config["k"]) == (3, [5, 10])
        assert (config["options"]["epochs"], config["options"]["embedding_size"]) == (2, 8)
        assert config["distillation"]["losses"]["logit"] == "sort"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.slow
def test_every_variant_as_json(variant: str, shop: Path, cli: Cli) -> None:
    quick = [word for word in QUICK if word not in ("--logit", "sort")]
    words = ["--teacher", "runs/bpr", "--out", "runs/new", *quick, "--variant", variant]
    found = answer(cli, *DISTILL, *words)
    assert (found["teachers"], found["weights"]) == (["bpr"], [1.0])
    assert ("assistant" in found) == (not variant.startswith("no-assistant"))
    told = found["student"]["distillation"]
    assert told["variant"] == variant
    assert {key: told["losses"][key] for key in VARIANTS[variant]} == dict(VARIANTS[variant])
    assert found["student"] == json.loads(Path("runs/new/student/results.json").read_text())


@pytest.mark.slow
def test_a_kind_of_teacher_is_trained_first(shop: Path, cli: Cli) -> None:
    words = ["--teacher-kind", "ease", "--set", "teacher.reg=7", "--out", "runs/new", *QUICK]
    got = cli(*DISTILL, *words, "--set", "student.n_layers=1", "--set", "assistant.epochs=1")
    assert got.code == 0, got.err
    assert "teacher" in got.out
    assert config_of("runs/new/teacher")["options"]["reg"] == 7
    assert config_of("runs/new/student")["options"]["n_layers"] == 1
    assert config_of("runs/new/assistant")["options"]["epochs"] == 1
    assert config_of("runs/new/student")["options"]["epochs"] == 2


@pytest.mark.slow
def test_two_teachers_with_weights_and_without(shop: Path, cli: Cli) -> None:
    both = ["--teacher", "runs/bpr", "--teacher", "vectors", "--variant", "no-assistant", *QUICK]
    given = answer(cli, *DISTILL, *both, "--weights", "3,1", "--out", "runs/given")
    assert given["teachers"] == ["bpr", "bpr"]
    assert given["weights"] == [0.75, 0.25]
    searched = cli(*DISTILL, *both[2:4], "--teacher", "runs/pop", *both[4:], "--out", "runs/found")
    assert searched.code == 0, searched.err
    assert "teachers and their weights: bpr " in searched.out
    weights = json.loads(Path("runs/found/teacher.json").read_text())["weights"]
    assert sum(weights) == pytest.approx(1)


def test_a_folder_of_vectors_and_one_student_need_no_comparison(shop: Path, cli: Cli) -> None:
    words = ["--teacher", "vectors", "--variant", "no-assistant", "--out", "runs/new", *QUICK]
    got = cli(*DISTILL, *words)
    assert got.code == 0, got.err
    assert "recall@10" in got.out
    assert "mlprec" in got.out


@pytest.mark.slow
def test_a_teacher_measured_otherwise_is_left_out_of_the_table(shop: Path, cli: Cli) -> None:
    words = ["--teacher", "runs/bpr", "--out", "runs/new", *QUICK, "--mask", "train"]
    got = cli(*DISTILL, *words)
    assert got.code == 0, got.err
    assert "not compared with the teacher" in got.err
    assert sorted(compared(got.out)) == ["assistant", "student"]


@pytest.mark.slow
def test_the_folders_are_runs_for_every_command(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = flows.flows
    monkeypatch.setattr(flows, "SHOWN", (0, 1, 2, 3))
    monkeypatch.setattr(flows, "flows", lambda seed: whole(seed, 3))
    monkeypatch.setattr(style, "files", lambda figure: {"png": b"png", "svg": b"<svg/>"})
    stages = ["runs/tarec/assistant", "runs/tarec/student"]
    found = answer(cli, "compare", "runs/bpr", *stages)
    assert found["runs"] == ["bpr", "assistant", "student"]
    text = cli("recommend", "runs/tarec/student", "--user", "u1", "-k", 3)
    assert text.code == 0, text.err
    again = answer(cli, "evaluate", "runs/tarec/student")
    assert again["metrics"]["recall@10"] == pytest.approx(
        json.loads(Path("runs/tarec/student/results.json").read_text())["test"]["recall@10"]
    )
    drawn = answer(cli, "figures", "runs/bpr", *stages, "--out", "pictures", "--pairs", 30)
    assert drawn["reference"] == "bpr"
    got = cli("report", "runs/bpr", *stages, "--out", "report.html")
    assert got.code == 0, got.err


@pytest.mark.slow
def test_the_student_is_profiled_beside_its_teacher(shop: Path, cli: Cli) -> None:
    words = ["--batch", 8, "--repeats", 2, "--threads", 1]
    cost = answer(cli, "profile", "runs/bpr", "runs/tarec/student", *words)
    assert [one["model"] for one in cost["runs"]] == ["bpr", "mlprec"]


# ------------------------------------------------------------------ going on and starting again


@pytest.mark.slow
def test_resume_goes_on_and_overwrite_starts_again(shop: Path, cli: Cli) -> None:
    words = [*DISTILL, "--teacher", "runs/bpr", "--out", "runs/tarec", *QUICK]
    Path("runs/tarec/student/results.json").unlink()
    before = snapshot(Path("runs/tarec/assistant"))
    weights = snapshot(Path("runs/tarec/student/checkpoints"))["best.safetensors"]
    got = cli(*words, "--resume")
    assert got.code == 0, got.err
    assert snapshot(Path("runs/tarec/assistant")) == before
    assert snapshot(Path("runs/tarec/student/checkpoints"))["best.safetensors"] == weights
    assert cli(*words, "--resume").code == 0
    got = cli(*words, "--overwrite", "--seed", 2)
    assert got.code == 0, got.err
    assert config_of("runs/tarec/assistant")["seed"] == 2


def test_overwriting_by_another_variant_leaves_no_old_assistant(shop: Path, cli: Cli) -> None:
    words = ["--teacher", "runs/bpr", "--out", "runs/tarec", *QUICK, "--variant", "no-assistant"]
    got = cli(*DISTILL, *words, "--overwrite")
    assert got.code == 0, got.err
    assert {path.name for path in Path("runs/tarec").iterdir()} == {"student", "teacher.json"}


# ------------------------------------------------------------------ mistakes


def nothing() -> None:
    """The mistake is on the command line alone."""


def other_data() -> None:
    fit(toy_dataset(seed=5).save("data/other"), "popularity", out="runs/other", ks=(5, 10))


def other_vectors() -> None:
    data = toy_dataset(n_items=50, seed=5)
    export_run(fit(data, "bpr", epochs=1), Path("others"), adapter=False)


def damaged() -> None:
    path = Path("vectors/users.npy")
    table = np.load(path)
    table[0, 0] += 1
    np.save(path, table)


def cut(path: str, size: int) -> Callable[[], None]:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:size])


def gone(*paths: str) -> Callable[[], None]:
    return lambda: [Path(path).unlink() for path in paths] and None


def interrupted_alone() -> None:
    """The student of another variant, stopped in the middle."""
    shutil.copytree("runs/tarec/student", "runs/half/student")
    Path("runs/half/student/results.json").unlink()


TEACHER = "--teacher runs/bpr "
MISTAKES: dict[str, tuple[Callable[[], None], str, tuple[str, ...]]] = {
    "unknown variant": (nothing, TEACHER + "--variant no-asistant", ("mean 'no-assistant'",)),
    "unknown logit": (nothing, TEACHER + "--logit sinkhron", ("mean 'sinkhorn'",)),
    "unknown option": (nothing, TEACHER + "--set logit_wight=1", ("mean 'logit_weight'",)),
    "unknown stage option": (
        nothing, TEACHER + "--set student.n_layer=1", ("student", "mean 'n_layers'")
    ),
    "name of an argument": (nothing, TEACHER + "--set progress=1", ("'progress'",)),
    "option of the wrong kind": (nothing, TEACHER + "--set logit_weight=much", ("'much'",)),
    "option out of bounds": (nothing, TEACHER + "--set eps=0", ("eps", "greater than 0")),
    "an option of the command": (nothing, TEACHER + "--set seed=2", ("write --seed",)),
    "logit twice": (nothing, TEACHER + "--logit kl --set logit=sort", ("write --logit",)),
    "decided by the variant": (
        nothing, TEACHER + "--variant no-wasserstein --logit sort", ("logit=sort", "variant")
    ),
    "no key": (nothing, TEACHER + "--set 7", ("key=value",)),
    "unknown mask": (nothing, TEACHER + "--mask trian", ("mean 'train'",)),
    "bad cut-offs": (nothing, TEACHER + "--k ten", ("'ten'",)),
    "no such device": (nothing, TEACHER + "--device cud", ("'cud'",)),
    "resume and overwrite": (nothing, TEACHER + "--resume --overwrite", ("both",)),
    "no teacher": (nothing, "", ("--teacher-kind", "neither")),
    "teacher and kind": (nothing, TEACHER + "--teacher-kind ease", ("both",)),
    "unknown kind": (nothing, "--teacher-kind eas", ("mean 'ease'",)),
    "options of no kind": (nothing, TEACHER + "--set teacher.reg=1", ("reg", "that is there")),
    "unknown option of the kind": (
        nothing, "--teacher-kind ease --set teacher.rg=1", ("mean 'reg'",)
    ),
    "weights of a kind": (nothing, "--teacher-kind ease --weights 1,2", ("one weight",)),
    "no such folder": (nothing, "--teacher runs/gone", ("runs/gone", "does not exist")),
    "a folder that is no run": (nothing, "--teacher data/toy", ("data/toy", "config.yaml")),
    "the same twice": (nothing, TEACHER + "--teacher runs/../runs/bpr", ("bpr twice",)),
    "half-finished teacher": (gone("runs/bpr/results.json"), TEACHER, ("interrupted",)),
    "torn weights": (cut("runs/bpr/checkpoints/best.safetensors", 40), TEACHER, ("weights of",)),
    "teacher of other data": (other_data, "--teacher runs/other", ("fingerprint", "runs/other")),
    "vectors of others": (other_vectors, "--teacher others", ("others", "item")),
    "changed vectors": (damaged, "--teacher vectors", ("users.npy", "checksum")),
    "cut vectors": (cut("vectors/items.npy", 200), "--teacher vectors", ("items.npy", "bytes")),
    "empty vectors": (cut("vectors/items.npy", 0), "--teacher vectors", ("items.npy", "bytes")),
    "torn manifest": (cut("vectors/manifest.json", 30), "--teacher vectors", ("manifest.json",)),
    "missing vectors": (gone("vectors/users.npy"), "--teacher vectors", ("users.npy",)),
    "weights that are none": (
        nothing, TEACHER + "--teacher vectors --weights 1;2", ("'1;2'", "--weights 0.6,0.4")
    ),
    "too many weights": (nothing, TEACHER + "--teacher vectors --weights 1,2,3", ("2 weights",)),
    "too few weights": (nothing, TEACHER + "--teacher vectors --weights 1", ("2 weights",)),
    "negative weights": (nothing, TEACHER + "--teacher vectors --weights=-1,2", ("below 0",)),
    "weights of nothing": (nothing, TEACHER + "--teacher vectors --weights 0,0", ("not all 0",)),
    "endless weights": (nothing, TEACHER + "--teacher vectors --weights nan,1", ("nan",)),
    "a weight of one": (nothing, TEACHER + "--weights 0", ("one weight",)),
    "no data": (nothing, TEACHER + "--data nowhere", ("nowhere",)),
    "a file for a folder": (nothing, TEACHER + "--out good.csv", ("the file good.csv",)),
    "a folder of other things": (nothing, TEACHER + "--out data/toy", ("with other files",)),
    "the teacher's own folder": (nothing, TEACHER + "--out runs/bpr", ("with other files",)),
    "a finished one": (nothing, TEACHER + "--out runs/tarec", ("finished run", "--overwrite")),
    "a finished one of another variant": (
        nothing, TEACHER + "--out runs/tarec --variant no-assistant", ("finished run",)
    ),
    "going on with other options": (
        gone("runs/tarec/student/results.json"),
        TEACHER + "--out runs/tarec --resume --set p=1", ("another experiment", " p "),
    ),
    "going on with another student": (
        gone("runs/tarec/student/results.json"),
        TEACHER + "--out runs/tarec --resume --set student.n_layers=3", ("option n_layers",),
    ),
    "going on with another seed": (
        gone("runs/tarec/student/results.json"),
        TEACHER + "--out runs/tarec --resume --seed 9", ("seed 1", "9"),
    ),
    "going on with another mask": (
        gone("runs/tarec/student/results.json"),
        TEACHER + "--out runs/tarec --resume --mask train", ("mask 'strict'",),
    ),
    "going on with another teacher": (
        gone("runs/tarec/student/results.json"),
        "--out runs/tarec --teacher runs/pop --resume", ("'bpr'", "another experiment"),
    ),
    "going on with another variant": (
        gone("runs/tarec/student/results.json"),
        TEACHER + "--out runs/tarec --resume --variant no-assistant", ("of another variant",),
    ),
    "going on where the student is of another variant": (
        interrupted_alone, TEACHER + "--out runs/half --resume --logit kl", ("another experiment",)
    ),
    "a teacher that would be replaced": (
        nothing, "--out runs/tarec --teacher runs/tarec/assistant --overwrite",
        ("replaced itself",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_three_facts_and_nothing_is_touched(name: str, shop: Path, cli: Cli) -> None:
    break_it, words, told = MISTAKES[name]
    break_it()
    given = words.split()
    quick = QUICK if not {"--logit", "--k"} & set(given) else QUICK[:4]
    place = [] if "--out" in given else ["--out", "runs/new"]
    before = snapshot(shop)
    got = cli(*DISTILL, *quick, *place, *given)
    assert got.code == 2, got
    assert "Traceback" not in got.err
    for fact in ("Error: expected ", "got ", "To fix: "):
        assert sum(line.strip().startswith(fact) for line in got.err.splitlines()) == 1, got.err
    missing = [word for word in told if word not in got.err]
    assert not missing, got.err
    assert got.out == ""
    assert snapshot(shop) == before


# ------------------------------------------------------------------ sweeps and ablations


@pytest.mark.slow
def test_a_sweep_over_both_weights(shop: Path, cli: Cli) -> None:
    words = ["sweep", "--data", "data/toy", "--teacher", "runs/bpr", "--out", "runs/s",
             "--set", "epochs=1", "--set", "embedding_size=8", "--set", "logit=sort",
             "--variant", "no-assistant", "--seeds", "1,2",
             "--grid", "logit_weight=0.1,10", "--grid", "embedding_weight=0,0.1"]  # fmt: skip
    got = cli(*words)
    assert got.code == 0, got.err
    assert "chosen on validation: logit_weight=" in got.out
    drawn = {path.name for path in Path("runs/s").glob("*.png")}
    assert drawn == {"curve-logit_weight.png", "curve-embedding_weight.png",
                     "heatmap-logit_weight-embedding_weight.png"}  # fmt: skip
    again = cli(*words, "--json")
    assert "8/8 runs were finished before" in again.err
    run = json.loads(again.out)["runs"][0]
    assert run["folder"].endswith("seed-1/student")
    assert run["results"]["distillation"]["variant"] == "no-assistant"
    before = snapshot(shop)
    got = cli(*words[:4], "runs/pop", *words[5:])
    assert got.code == 2
    assert "teachers" in got.err
    assert snapshot(shop) == before


@pytest.mark.slow
def test_an_ablation_has_every_variant(shop: Path, cli: Cli) -> None:
    words = ["ablate", "--data", "data/toy", "--teacher", "runs/bpr", "--out", "runs/a",
             "--set", "epochs=1", "--set", "embedding_size=8", "--set", "logit=sort",
             "--seeds", "1"]  # fmt: skip
    got = cli(*words)
    assert got.code == 0, got.err
    assert "to full" in got.out
    found = answer(cli, *words)
    assert [row["name"] for row in found["table"]] == list(VARIANTS)
    losses = {
        run["name"]: run["results"]["distillation"]["losses"]["logit"] for run in found["runs"]
    }
    own = {name: options["logit"] for name, options in VARIANTS.items() if "logit" in options}
    assert set(own.values()) == {"kl", "masses"}
    assert losses == {name: own.get(name, "sort") for name in VARIANTS}


SWEEP = "sweep --out runs/new --grid logit_weight=0.1,1 "
SWEEP_MISTAKES = {
    "model and teacher": (SWEEP + TEACHER + "--model cm3", "both"),
    "weights without a teacher": (SWEEP + "--weights 1,2", "no teacher"),
    "weights that do not fit": (SWEEP + TEACHER + "--weights 1,2", "one weight"),
    "no such teacher": (SWEEP + "--teacher runs/gone", "runs/gone"),
    "unknown variant": (SWEEP + TEACHER + "--variant ful", "mean 'full'"),
    "unknown varied variant": (SWEEP + TEACHER + "--grid variant=ful,no", "mean 'full'"),
    "unknown option": (SWEEP + TEACHER + "--set eps_=1", "mean 'eps'"),
    "unknown varied option": (SWEEP + TEACHER + "--grid epz=1,2", "mean 'eps'"),
    "out of bounds": (SWEEP + TEACHER + "--grid eps=0,1", "greater than 0"),
    "decided by the variant": (
        SWEEP + TEACHER + "--variant no-embedding --grid embedding_weight=0,1",
        "embedding_weight=1",
    ),
    "variant as an option": (SWEEP + TEACHER + "--set variant=full", "write --variant"),
    "name of an argument": (SWEEP + TEACHER + "--set progress=1", "'progress'"),
    "variant of a model that has none": (SWEEP + "--model bpr --variant x", "a variant of bpr"),
    "unknown ablation": ("ablate --out runs/new --variants no-asistant " + TEACHER, "'no-ass"),
    "ablation of a variant": ("ablate --out runs/new --set variant=full " + TEACHER, "'variant'"),
    "ablation that changes nothing": (
        "ablate --out runs/new --set logit=kl " + TEACHER, "differs from distillation"
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEP_MISTAKES)
def test_mistakes_of_sweeps_touch_nothing(name: str, shop: Path, cli: Cli) -> None:
    words, told = SWEEP_MISTAKES[name]
    before = snapshot(shop)
    got = cli(*words.split(), "--data", "data/toy")
    assert got.code == 2, got
    assert told in got.err
    assert got.err.count("To fix:") == 1
    assert got.out == ""
    assert snapshot(shop) == before
