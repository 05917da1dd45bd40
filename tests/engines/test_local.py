"""Tasks in worker processes: order, failures, deaths, threads."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from modalign.engines.local import Done, each


def values(found: list[Done]) -> dict:
    return {done.task: done.value for done in found}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once_wherever_it_runs(workers: int) -> None:
    found = list(each([3, -4, 5, -6, 7], abs, workers))
    assert values(found) == {3: 3, -4: 4, 5: 5, -6: 6, 7: 7}
    assert all(done.error is None and done.seconds >= 0 for done in found)
    assert not active_children()


def test_equal_tasks_are_each_done() -> None:
    assert [done.value for done in each([2, 2, 2], operator.neg, 2)] == [-2, -2, -2]


def test_no_tasks_start_no_process() -> None:
    assert list(each([], abs, 4)) == []


def test_an_error_of_the_program_is_not_swallowed() -> None:
    with pytest.raises(TypeError):
        list(each(["x"], abs))


def test_a_consumer_that_stops_leaves_no_process() -> None:
    results = each([1, 2, 3, 4], abs, 2)
    next(results)
    results.close()
    assert not active_children()


def test_workers_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    share = str(max(1, torch.get_num_threads() // 2))
    found = each(["OMP_NUM_THREADS"] * 2, os.getenv, 2)
    assert [done.value for done in found] == [share, share]
    assert os.environ["OMP_NUM_THREADS"] == "77"


def test_a_worker_that_exits_loses_only_its_task() -> None:
    # `os._exit` ends the process without an answer, as a fault in a C library would.
    found = {done.task: done.error for done in each([3, 0], os._exit, 2)}
    assert "exited with code 3" in str(found[3])
    assert "exited with code 0" in str(found[0])


def test_a_killed_worker_is_replaced_three_times() -> None:
    found = {
        done.task: done.error
        for done in each([signal.SIGKILL, signal.SIGCONT], signal.raise_signal, 2)
    }
    assert found[signal.SIGCONT] is None
    assert "was killed 3 times" in str(found[signal.SIGKILL])


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_what_to_write(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from modalign.engines.local import each\nprint(list(each([1, 2], abs, 2)))\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert ran.returncode
    assert "exited with code 1 before its first task" in ran.stderr
    assert "if __name__ == '__main__'" in ran.stderr
