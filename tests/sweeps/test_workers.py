"""Processes that do the runs: deaths, failures, threads; and a sweep killed from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from sweep_jobs import Formula

from modalign import sweeps
from modalign.sweeps import SweepPlan
from modalign.testing.toy import toy_dataset


def table(found: sweeps.Sweep) -> list:
    """All that is measured; seconds differ."""
    return [(row.name, row.seeds, row.valid, row.test) for row in found.rows]


@pytest.mark.slow
def test_a_killed_process_leaves_the_others_and_its_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "77")  # the processes get their share instead
    plan = SweepPlan(
        {
            "fine": {"x": 1},
            "fails": {"x": 5, "mood": "fails"},
            "dies": {"x": 4, "mood": "dies"},
            "dies once": {"x": 3, "mood": "dies once"},
            "leaves": {"x": 2, "mood": "leaves"},
        },
        (1,),
    )
    found = sweeps.run(plan, Formula(), tmp_path, workers=2)
    assert {row.name for row in found.rows if row.seeds} == {"fine", "dies once"}
    errors = {run.name: run.error for run in found.failed}
    assert errors["fails"] == "the loss became nan"
    assert "was killed 3 times" in str(errors["dies"])
    assert "exited with code 3" in str(errors["leaves"])
    began = {p.parent.parent.name: len(p.read_text()) for p in tmp_path.rglob("tries")}
    assert began == {"fine": 1, "fails": 1, "dies": 3, "dies_once": 2, "leaves": 1}
    one = json.loads((found.runs[0].folder / "results.json").read_text())
    assert one["threads"] == str(max(1, torch.get_num_threads() // 2))
    assert not active_children()


@pytest.mark.slow
def test_killed_in_part_and_as_a_whole_a_sweep_goes_on_to_the_same_table(tmp_path: Path) -> None:
    data = toy_dataset(seed=1).save(tmp_path / "toy")
    out, rates = tmp_path / "sweep", (0.01, 0.02, 0.03, 0.04)
    words = (
        "--model bpr --set epochs=80 --set patience=999 --grid learning_rate=0.01,0.02,0.03,0.04"
    )
    command = [sys.executable, "-m", "modalign.cli.main", "sweep", "--data", str(data.folder),
               "--out", str(out), *words.split(), "--workers", "2"]  # fmt: skip
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        try:
            _until(lambda: len(list(out.glob("runs/*/*/metrics.jsonl"))) >= 2, process)
            os.kill(_members(process.pid, "spawn_main")[-1], signal.SIGKILL)
            _until(lambda: list(out.glob("runs/*/*/results.json")), process)
        finally:
            process.kill()
    _until(lambda: not _members(process.pid))
    done = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/results.json")}
    assert 1 <= len(done) < 4, "killed too late to show anything"
    assert not (out / "results.json").exists()
    call = {"plan": {"learning_rate": rates}, "epochs": 80, "patience": 999}
    again = sweeps.sweep(data, "bpr", out, **call)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    whole = sweeps.sweep(data, "bpr", tmp_path / "whole", **call)
    assert table(again) == table(whole)


def _until(there: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait, but not for ever."""
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end
        assert process is None or process.poll() is None
        time.sleep(0.005)


def _members(group: int, word: str = "") -> list[int]:
    """Processes of a group that are alive, and have a word in their command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, member_of = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (folder / "cmdline").read_text()
        except OSError:  # it ended meanwhile
            continue
        if state != "Z" and member_of == str(group) and word in command:
            found.append(int(folder.name))
    return sorted(found)
