"""Exact resume: killed with SIGKILL and started again gives the same weights, bit for bit."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_model, tiny_view

from modalign.errors import RunError
from modalign.train.trainer import TrainOptions, fit

SCRIPT = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from tiny import tiny_model, tiny_view
from modalign.train.trainer import TrainOptions, fit

class Kill:
    def on_start(self, state, epochs): pass
    def on_end(self, state): pass
    def on_epoch(self, record, state):
        if state.epoch == 4:
            os.kill(os.getpid(), signal.SIGKILL)

view = tiny_view()
model = tiny_model(view)
options = TrainOptions(seed=7, epochs=6, batch_size=64, device="cpu", checkpoint_every={every})
fit(model, view, options, lambda m: {{"recall@20": float(m.user.detach().sum())}},
    callbacks=[Kill()], checkpoint_path=Path({path!r}), fingerprint="f", resume=True)
"""


def run_to_the_end(path=None, resume=False):
    view = tiny_view()
    model = tiny_model(view)
    options = TrainOptions(seed=7, epochs=6, batch_size=64, device="cpu", checkpoint_every=0)
    state = fit(
        model,
        view,
        options,
        lambda m: {"recall@20": float(m.user.detach().sum())},
        checkpoint_path=path,
        fingerprint="f",
        resume=resume,
    )
    return model, state


@pytest.mark.slow
@pytest.mark.parametrize("every", [0, 1000], ids=["from-the-third-epoch", "from-the-start"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, every):
    path = tmp_path / "last.pt"
    script = SCRIPT.format(folder=str(Path(__file__).parent), path=str(path), every=every)
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.exists() == (every == 0)
    resumed, state = run_to_the_end(path, resume=True)
    straight, expected = run_to_the_end()
    assert resumed.user.equal(straight.user)
    assert resumed.item.equal(straight.item)
    assert (state.best_epoch, state.best_metric) == (expected.best_epoch, expected.best_metric)
    strip = lambda h: [{k: v for k, v in r.items() if k != "seconds"} for r in h]  # noqa: E731
    assert strip(state.history) == strip(expected.history)
    assert state.step == expected.step


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path):
    path = tmp_path / "last.pt"
    run_to_the_end(path)
    view = tiny_view()
    with pytest.raises(RunError, match="one of another experiment"):
        fit(
            tiny_model(view),
            view,
            TrainOptions(device="cpu"),
            checkpoint_path=path,
            fingerprint="g",
            resume=True,
        )


def test_a_damaged_checkpoint_is_told(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(b"not a checkpoint")
    view = tiny_view()
    with pytest.raises(RunError, match="a readable checkpoint"):
        fit(tiny_model(view), view, TrainOptions(device="cpu"), checkpoint_path=path, resume=True)


def test_a_kill_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    run_to_the_end(path)
    before = path.read_bytes()

    def broken(*args, **kwargs):
        Path(args[1]).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        run_to_the_end(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def other_shape(payload):
    payload["model"]["user"] = payload["model"]["user"][:-1]


def other_optimizers(payload):
    payload["optimizers"] = []


def other_best(payload):
    payload["state"]["best"] = {"user": torch.zeros(1)}


def no_state(payload):
    del payload["state"]["epoch"]
    payload["state"]["wonder"] = 1


@pytest.mark.parametrize("change", [other_shape, other_optimizers, other_best, no_state])
def test_a_checkpoint_of_another_shape_is_told_in_three_facts(tmp_path, change):
    path = tmp_path / "last.pt"
    run_to_the_end(path)
    payload = torch.load(path, weights_only=True)
    change(payload)
    torch.save(payload, path)
    with pytest.raises(RunError) as caught:
        run_to_the_end(path, resume=True)
    assert str(path) in caught.value.expected
    assert "--overwrite" in caught.value.fix
    assert "\n" not in caught.value.got


@pytest.mark.parametrize("raised", [KeyboardInterrupt, OSError])
def test_a_stop_says_up_to_which_epoch_training_is_kept(tmp_path, raised):
    class Stopping(Silent):
        def on_epoch(self, record, state):
            if state.epoch == 3:
                raise raised

    view = tiny_view()
    options = TrainOptions(device="cpu", epochs=5, checkpoint_every=0.0)
    with pytest.raises(raised) as caught:
        fit(tiny_model(view), view, options, callbacks=[Stopping()],
            checkpoint_path=tmp_path / "last.pt")  # fmt: skip
    assert caught.value.__notes__ == ["training is kept up to epoch 2, of 3 done"]


class Silent:
    def on_start(self, state, epochs):
        pass

    def on_epoch(self, record, state):
        pass

    def on_end(self, state):
        pass
