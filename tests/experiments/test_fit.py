"""From data to a run folder and back, with the embedded toy data and models without training."""

import json
import subprocess
import sys
from dataclasses import fields

import numpy as np
import polars as pl
import pytest
import yaml

import modalign
from modalign.cli.options import RUN_FIELDS
from modalign.core.files import held
from modalign.core.interfaces import TrainedConfig
from modalign.errors import ConfigError, DataError, RunError, UnknownName
from modalign.experiments.fit import load_model
from modalign.experiments.options import RunOptions
from modalign.experiments.run_folder import read_run
from modalign.models._registry import specs
from modalign.models.bpr import BPRConfig
from modalign.testing.toy import toy_dataset


@pytest.fixture(scope="module")
def data():
    return toy_dataset(seed=1)


@pytest.fixture
def run(data, tmp_path):
    folder = tmp_path / "run"
    return modalign.fit(data, "bpr", seed=3, out=folder, epochs=4, batch_size=64), folder


def test_a_run_folder_holds_what_it_promises(run, data):
    _, folder = run
    results = json.loads((folder / "results.json").read_text())
    wanted = {"model", "seed", "data", "mask", "best_epoch", "epochs", "parameters", "seconds"}
    wanted |= {"valid", "test"}
    assert wanted <= set(results)
    assert results["data"] == data.fingerprint
    assert (results["model"], results["seed"], results["mask"]) == ("bpr", 3, "strict")
    assert results["parameters"] == (data.n_users + data.n_items) * 64
    assert results["epochs"] == 4
    assert {"recall@20", "ndcg@20"} <= set(results["test"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    # Of 40 items few are left to rank, and NDCG selects.
    best = max(lines, key=lambda line: line["valid/ndcg@20"])
    assert results["best_epoch"] == best["epoch"]
    assert results["valid"]["recall@20"] == pytest.approx(best["valid/recall@20"])
    per_user = pl.read_parquet(folder / "per_user.parquet")
    assert per_user["recall@20"].mean() == pytest.approx(results["test"]["recall@20"])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["options"]["epochs"] == 4
    assert json.loads((folder / "environment.json").read_text())["torch"]
    assert (folder / "checkpoints" / "best.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["recall@10", "ndcg@10", "ndcg@20"])
def test_the_metric_one_names_picks_the_epoch(data, tmp_path, metric):
    options = {"epochs": 12, "batch_size": 16, "learning_rate": 0.3, "select_by": metric}
    fitted = modalign.fit(data, "bpr", seed=3, out=tmp_path / "run", **options)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    best = max(map(json.loads, lines), key=lambda line: line[f"valid/{metric}"])
    assert fitted.results["best_epoch"] == best["epoch"]
    with pytest.raises(ConfigError, match="select_by"):
        modalign.fit(data, "bpr", select_by="map@7")


def test_loaded_equals_trained(run):
    fitted, folder = run
    again = load_model(folder)
    assert again.recommend(k=7).equals(fitted.recommend(k=7))
    assert again.results == fitted.results


def test_same_seed_same_bits(data, run):
    fitted, _ = run
    twin = modalign.fit(data, "bpr", seed=3, epochs=4, batch_size=64)
    other = modalign.fit(data, "bpr", seed=4, epochs=4, batch_size=64)
    for ours, theirs in zip(fitted.model.parameters(), twin.model.parameters(), strict=True):
        assert ours.equal(theirs)
    assert twin.results["test"] == fitted.results["test"]
    assert not next(iter(other.model.parameters())).equal(next(iter(twin.model.parameters())))


def test_save_and_load_by_hand(data, tmp_path):
    fitted = modalign.fit(data, "popularity")
    fitted.save(tmp_path / "saved")
    again = modalign.load_model(tmp_path / "saved")
    assert again.recommend(k=3).equals(fitted.recommend(k=3))
    with pytest.raises(RunError, match="which is not empty"):
        fitted.save(tmp_path / "saved")


def test_a_saved_model_is_the_run_folder_that_training_leaves(data, tmp_path):
    options = {"seed": 3, "epochs": 3, "batch_size": 64, "mask": "train", "ks": (5, 7)}
    data = data.save(tmp_path / "toy")
    modalign.fit(data, "bpr", out=tmp_path / "trained", precision="bf16-mixed", **options)
    fitted = modalign.fit(data, "bpr", precision="bf16-mixed", **options)
    fitted.save(tmp_path / "saved")
    load_model(tmp_path / "saved").save(tmp_path / "again")

    def written(name):
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}

    def untimed(text):
        records = [
            json.loads(line)
            for line in text.replace(b"\n ", b"").replace(b"\n}", b"}").splitlines()
        ]
        assert all(record.pop("seconds") >= 0 for record in records)
        return records

    wanted = written("trained")
    del wanted["checkpoints/last.pt"]  # training does not continue from a saved model
    for name in ("saved", "again"):
        found = written(name)
        assert found.keys() == wanted.keys()
        for path in ("results.json", "metrics.jsonl"):  # two trainings take different times
            assert untimed(found.pop(path)) == untimed(wanted[path])
        assert found == {path: wanted[path] for path in found}


def test_a_configuration_names_its_model(data):
    config = BPRConfig(epochs=1, embedding_size=8, select_by="ndcg@20")
    fitted = modalign.fit(data, config, seed=3)
    assert fitted.spec.name == "bpr"
    assert fitted.config == config
    named = modalign.fit(data, "bpr", seed=3, epochs=1, embedding_size=8, select_by="ndcg@20")
    assert fitted.results["test"] == named.results["test"]
    with pytest.raises(ConfigError, match="a configuration with all options in it"):
        modalign.fit(data, config, epochs=2)
    with pytest.raises(ConfigError, match="of no model"):
        modalign.fit(data, TrainedConfig())


def test_run_options_come_as_an_object_or_as_keywords(data):
    run = RunOptions(mask="train", ks=(7,))
    one = modalign.fit(data, "popularity", run=run)
    two = modalign.fit(data, "popularity", mask="train", ks=(7,))
    assert one.run == two.run
    assert one.results["test"] == two.results["test"]
    assert modalign.fit(data, "popularity", run=run, mask="strict").run.mask == "strict"


def test_no_option_of_a_model_has_the_name_of_a_run_option():
    assert {field.name for field in fields(RunOptions)} == RUN_FIELDS
    for name, spec in specs().items():
        assert not RUN_FIELDS & spec.config.model_fields.keys(), name


def test_recommendations_leave_out_what_was_seen_and_are_in_order(data, run):
    fitted, _ = run
    frame = fitted.recommend(k=10)
    assert frame.columns == ["user_id", "rank", "item_id", "score", "title"]
    user = frame["user_id"][0]
    mine = frame.filter(pl.col("user_id") == user)
    assert mine["rank"].to_list() == list(range(1, len(mine) + 1))
    assert mine["score"].is_sorted(descending=True)
    row = data.users.rows([user])[0]
    seen = {
        one
        for part in (data.train, data.valid)
        for one in data.items.ids(part.items[part.users == row])
    }
    assert not seen & set(mine["item_id"])
    with_seen = fitted.recommend([user], k=data.n_items, filter_seen=False)
    assert seen <= set(with_seen["item_id"])


def test_similar_items_are_cosines_without_itself(data, run):
    fitted, _ = run
    item = next(iter(data.items))
    frame = fitted.similar_items([item], k=4)
    vectors = fitted.model.item_vectors().detach().numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[0]
    cosines[0] = -np.inf
    order = np.argsort(-cosines)[:4]
    assert frame["similar_item_id"].to_list() == data.items.ids(order)
    np.testing.assert_allclose(frame["score"].to_numpy(), cosines[order], atol=1e-6)


def test_people_who_were_not_in_training(data, run):
    item = next(iter(data.items))
    ease = modalign.fit(data, "ease", reg=5.0)
    frame = ease.recommend_for({"someone": [item]}, k=3)
    assert frame["user_id"].unique().to_list() == ["someone"]
    assert item not in frame["item_id"].to_list()
    alike = ease.similar_items([item], k=3)
    assert alike["similar_item_id"].to_list() == frame["item_id"].to_list()
    with pytest.raises(ConfigError, match="scores unseen users"):
        run[0].recommend_for({"someone": [item]})


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model": "lightgnc"}, UnknownName, "did you mean 'lightgcn'"),
        ({"model": "bpr", "learning_rat": 1}, ConfigError, "did you mean 'learning_rate'"),
        ({"model": "bpr", "device": "cuda:99"}, ConfigError, "a CUDA device"),
        ({"model": "bpr", "device": "tpu!"}, ConfigError, "a device"),
        ({"model": "bpr", "tensorboard": True}, ConfigError, "a run folder"),
        ({"model": "vbpr", "modalities": ["sound"]}, UnknownName, "a modality"),
    ],
)
def test_mistakes_of_a_call(data, options, error, said):
    with pytest.raises(error, match=said):
        modalign.fit(data, **options)


def test_a_folder_in_use_is_not_overwritten_unasked(data, run, tmp_path):
    _, folder = run
    before = (folder / "results.json").read_text()
    with pytest.raises(RunError, match="holds a finished run"):
        modalign.fit(data, "bpr", out=folder)
    (folder / "results.json").unlink()
    with pytest.raises(RunError, match="interrupted run"):
        modalign.fit(data, "bpr", out=folder)
    with pytest.raises(RunError, match="a run that was interrupted"):
        load_model(folder)
    with pytest.raises(RunError, match="one of another experiment"):
        modalign.fit(data, "bpr", seed=99, out=folder, resume=True)
    modalign.fit(data, "bpr", seed=3, out=folder, resume=True, epochs=4, batch_size=64)
    assert json.loads(before)["test"] == read_run(folder)[1]["test"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("x")
    with pytest.raises(RunError, match="with other files"):
        modalign.fit(data, "bpr", out=tmp_path / "full")


def test_a_file_is_no_folder_to_save_in(data, run, tmp_path):
    (tmp_path / "taken").touch()
    for make in (run[0].save, lambda out: modalign.fit(data, "bpr", out=out, epochs=1)):
        with pytest.raises(RunError, match=r"is a file|the file"):
            make(tmp_path / "taken")


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_one_process_at_a_time_trains_in_a_folder(data, run, how):
    _, folder = run
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    (folder / "results.json").unlink()
    options = {"seed": 3, "epochs": 4, "batch_size": 64, **how}
    with held(folder, "training"), pytest.raises(RunError, match="another training is running"):
        modalign.fit(data, "bpr", out=folder, **options)
    del before["results.json"]
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    if how:
        modalign.fit(data, "bpr", out=folder, **options)
        assert not (folder / ".lock").exists()


@pytest.mark.slow
def test_a_process_that_was_killed_lets_go_of_its_folder(data, tmp_path):
    code = (
        "import sys; from modalign.core.files import Path, held\n"
        "with held(Path(sys.argv[1]), 'training'): print(1, flush=True); input()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(RunError, match="another training"), held(tmp_path, "training"):
            pass
        other.kill()
    assert (tmp_path / ".lock").exists()
    modalign.fit(data, "bpr", out=tmp_path, epochs=1, batch_size=64)
    assert not (tmp_path / ".lock").exists()


def test_other_data_and_damaged_weights_are_refused(run):
    _, folder = run
    with pytest.raises(RunError, match="was trained on"):
        load_model(folder, toy_dataset(seed=2))
    (folder / "checkpoints" / "best.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match="weights of bpr"):
        load_model(folder)


def test_unknown_users_and_items_are_named(run):
    with pytest.raises(DataError, match="'nobody'"):
        run[0].recommend(["nobody"])
    with pytest.raises(DataError, match="'nothing'"):
        run[0].similar_items(["nothing"])
    with pytest.raises(ConfigError, match="at least one item"):
        run[0].recommend(k=0)


def test_ten_lines_from_a_data_frame(tmp_path):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(1)
    users, items = rng.integers(0, 30, 600), rng.integers(0, 40, 600)
    frame = pandas.DataFrame({"user_id": users, "item_id": items})
    dataset = modalign.load(frame, split="ratio", seed=1)
    same = modalign.load(pl.from_pandas(frame), split="ratio", seed=1)
    assert dataset.fingerprint == same.fingerprint
    model = modalign.fit(dataset, "ease", reg=10.0)
    top = model.recommend([int(users[0])], k=5).to_pandas()
    assert list(top["rank"]) == [1, 2, 3, 4, 5]
    model.save(tmp_path / "m")
    assert modalign.load_model(tmp_path / "m").dataset.fingerprint == dataset.fingerprint


def test_one_more_modality_does_not_break_earlier_runs(tmp_path):
    from modalign.core.modality import Modality
    from modalign.data.dataset import Dataset
    from modalign.data.modality_file import drop_modalities, write_modality
    from modalign.errors import RunError
    from modalign.experiments.fit import fit, load_model
    from modalign.testing.toy import toy_dataset

    data = toy_dataset().save(tmp_path / "data")
    small = {"epochs": 1, "embedding_size": 8}
    runs = {}
    for name, model in (("bpr", "bpr"), ("all", "vbpr"), ("one", "vbpr")):
        more = {"modalities": ["text"]} if name == "one" else {}
        fitted = fit(data, model, out=tmp_path / name, **small, **more)
        runs[name] = fitted.recommend(k=3)
    rows = np.random.default_rng(0).normal(size=(data.n_items, 5)).astype(np.float32)
    words = Modality("words", rows, np.ones(data.n_items, bool))
    write_modality(tmp_path / "data" / "modalities", words, data.items)
    for name, expected in runs.items():
        loaded = load_model(tmp_path / name)
        assert loaded.recommend(k=3).equals(expected)
        if name != "bpr":
            assert set(loaded.dataset.modalities) == {"text", "image"}
    more_read = fit(Dataset.load(tmp_path / "data"), "vbpr", out=tmp_path / "more", **small)
    assert set(more_read.results["modalities"]) == {"text", "image", "words"}
    assert drop_modalities(tmp_path / "data", ["image", "words"]) == ["text"]
    # Runs that do not read a modality outlive it.
    for name in ("bpr", "one"):
        assert load_model(tmp_path / name).recommend(k=3).equals(runs[name])
    with pytest.raises(RunError, match=r"modality 'image' as .*all was trained with.*got none"):
        load_model(tmp_path / "all")


def test_a_comparison_says_which_modalities_runs_read(tmp_path):
    from modalign.experiments.fit import fit
    from modalign.report.side_by_side import compare_runs
    from modalign.testing.toy import toy_dataset

    data = toy_dataset().save(tmp_path / "data")
    small = {"epochs": 1, "embedding_size": 8}
    fit(data, "vbpr", out=tmp_path / "both", **small)
    fit(data, "vbpr", out=tmp_path / "text", modalities=["text"], **small)
    fit(data, "bpr", out=tmp_path / "ids", **small)
    found = compare_runs([tmp_path / "both", tmp_path / "text", tmp_path / "ids"])
    marks = {name: data.modalities[name].fingerprint for name in ("image", "text")}
    assert found.modalities == {"both": marks, "text": {"text": marks["text"]}, "ids": {}}
    said = f"the runs read different features: both image ({marks['image'][:6]}), text"
    assert any(one.startswith(said) for one in found.remarks)
    alike = compare_runs([tmp_path / "both", tmp_path / "ids"])
    assert not any("features" in one for one in alike.remarks)


def test_a_run_from_before_an_option_existed_loads_as_it_was_trained(tmp_path):
    data = toy_dataset().save(tmp_path / "data")
    small = {"epochs": 1, "embedding_size": 8, "feature_scale": "raw"}
    expected = modalign.fit(data, "mmrec", out=tmp_path / "run", **small).recommend(k=3)
    path = tmp_path / "run" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    assert config["options"].pop("feature_scale") == "raw"
    path.write_text(yaml.safe_dump(config))
    loaded = load_model(tmp_path / "run")
    assert loaded.config.feature_scale == "raw"
    assert loaded.recommend(k=3).equals(expected)


def small_and_large():
    """Data with 8 training items a user: of 107 items 99 are left to rank, of 108 items 100."""
    return {few: toy_dataset(n_items=107 if few else 108) for few in (True, False)}


def test_few_items_left_to_rank_are_selected_by_ndcg_with_one_warning(caplog):
    small = {"epochs": 2, "embedding_size": 8, "ks": (20,)}
    for few, data in small_and_large().items():
        caplog.clear()
        found = modalign.fit(data, "bpr", **small)
        said = [one.message for one in caplog.records if "left to rank" in one.message]
        if few:
            assert found.config.select_by == "ndcg@20"
            (message,) = said
            assert "99 items are left to rank" in message
            assert "NDCG@20 selects the best epoch" in message
            best = max(found.history, key=lambda record: record["valid/ndcg@20"])
            assert found.results["best_epoch"] == best["epoch"]
        else:
            assert found.config.select_by == "recall@20"
            assert not said
    # What was chosen is kept, and another K has other bounds.
    caplog.clear()
    few = small_and_large()[True]
    assert modalign.fit(few, "bpr", select_by="recall@20", **small).config.select_by == "recall@20"
    assert "select_by=ndcg@20 would tell epochs apart" in caplog.text
    caplog.clear()
    modalign.fit(few, "bpr", select_by="recall@10", **small)
    modalign.fit(few, "popularity", ks=(20,))
    assert "left to rank" not in caplog.text


def test_a_run_below_popularity_says_so_and_what_to_try(data, caplog):
    by = {"select_by": "recall@20", "ks": (20,)}
    counts = modalign.fit(data, "popularity", ks=(20,)).results["valid"]["recall@20"]
    assert not caplog.records
    weak = modalign.fit(data, "bpr", epochs=1, learning_rate=1e-6, **by).results["valid"][
        "recall@20"
    ]
    assert weak < counts
    (said,) = [one.message for one in caplog.records if "below popularity" in one.message]
    assert f"recall@20 {weak:.4f} against {counts:.4f}" in said
    assert "more epochs" in said
    assert "learning_rate" in said
    caplog.clear()
    strong = modalign.fit(data, "ease", reg=50.0, ks=(20,)).results["valid"]["recall@20"]
    assert strong > counts
    assert not [one for one in caplog.records if "below popularity" in one.message]
