"""Weights that are not finite are refused where they arise, where they are read and exported."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from modalign.errors import ConfigError, RunError, TrainingError
from modalign.experiments.fit import fit, load_model
from modalign.experiments.run_folder import WEIGHTS
from modalign.export.export_run import export_run
from modalign.testing.toy import toy_dataset

DATA = toy_dataset()


def test_a_large_learning_rate_ends_in_one_sentence():
    with pytest.raises(TrainingError, match="smaller learning rate"):
        fit(DATA, "bandvae", learning_rate=10.0, epochs=5)


def test_a_file_with_nan_is_neither_loaded_nor_exported(tmp_path):
    fitted = fit(DATA, "bpr", embedding_size=4, epochs=1, out=tmp_path / "run")
    path = tmp_path / "run" / WEIGHTS
    weights = load_file(path)
    name = sorted(weights)[0]
    weights[name][2, 1] = float("nan")
    save_file(weights, path)
    with pytest.raises(RunError, match=f"NaN or infinite numbers in {name}"):
        load_model(tmp_path / "run", DATA)
    with torch.no_grad():
        fitted.model.get_parameter(name)[0, 0] = float("inf")
    with pytest.raises(ConfigError, match=name):
        export_run(fitted, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_a_run_that_ends_so_is_refused(monkeypatch):
    monkeypatch.setattr("modalign.experiments.run_folder.not_finite", lambda model: ["user.weight"])
    with pytest.raises(TrainingError, match=r"user\.weight of bpr are not finite after epoch 1"):
        fit(DATA, "bpr", embedding_size=4, epochs=1)
