"""Runs in processes of their own: when one is killed the others go on.

A process takes one run after another, so that torch is imported and the data are read once. It
ends when its parent does, however that ends: a sweep that was killed leaves nobody behind who
writes into its folders.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalign.errors import ModalignError, RunError

if TYPE_CHECKING:
    from modalign.sweeps.job import Job

LIVES = 3  # a run whose process was killed goes on in a new one, so often in all
THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One run to make: options of set `name`, a seed, and the folder for it."""

    name: str
    options: Mapping[str, Any]
    seed: int
    folder: Path


@dataclass(frozen=True)
class Done:
    """A run that came to its end: after so many seconds, with an error or None."""

    task: Task
    seconds: float
    error: str | None


def each(tasks: Sequence[Task], job: Job, workers: int = 1) -> Iterator[Done]:
    """Run all tasks; yields each as it ends, in the order in which they end.

    A loss that became NaN, a run the model refuses or one that memory does not suffice for ends
    that run alone.

    Args:
        tasks: what to run.
        job: how.
        workers: processes, each with its share of torch's threads; up to 1 runs here.

    Raises:
        RunError: a process ends before its first run.
    """
    if workers <= 1:
        yield from (attempt(job, task) for task in tasks)
    elif tasks:
        yield from _Crew(tasks, job, min(workers, len(tasks))).work()


def attempt(job: Job, task: Task) -> Done:
    """One run, here."""
    began = time.monotonic()
    error = None
    try:
        job.run(task.options, task.seed, task.folder)
    except (ModalignError, MemoryError, RuntimeError) as found:
        # What torch raises when a GPU is full is a RuntimeError as any other, but for its name.
        if isinstance(found, RuntimeError) and type(found).__name__ != "OutOfMemoryError":
            raise
        error = " ".join(str(found).split()) or type(found).__name__
    return Done(task, time.monotonic() - began, error)


class _Worker:
    """A process, the line to it, and the run it is at."""

    def __init__(self, job: Job, threads: int) -> None:
        context = get_context("spawn")
        self.line, its_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(its_end, job), daemon=True)
        with _environment(dict.fromkeys(THREADS, str(threads))):
            self.process.start()
        its_end.close()  # so that the line breaks when the process dies
        self.ready, self.began = False, 0.0
        self.task: Task | None = None

    def give(self, task: Task) -> None:
        self.task, self.began = task, time.monotonic()
        self.line.send(task)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.line.close()


class _Crew:
    """The processes and what is left to do."""

    def __init__(self, tasks: Sequence[Task], job: Job, workers: int) -> None:
        self.waiting = deque(tasks)
        self.lives = {task.folder: LIVES for task in tasks}
        self.job, self.size = job, workers
        # Rounded down: two threads on one core wait for each other in every operation.
        self.threads = max(1, _threads() // workers)
        self.workers: dict[Connection, _Worker] = {}
        self.stillborn = 0

    def work(self) -> Iterator[Done]:
        try:
            while self.waiting or any(one.task for one in self.workers.values()):
                self._hand_out()
                for line in wait(list(self.workers)):
                    done = self._hear(self.workers[line])  # type: ignore[index]
                    if done is not None:
                        yield done
        finally:
            for worker in self.workers.values():
                worker.stop()

    def _hand_out(self) -> None:
        """What is left goes to those who are free; for the rest there are new processes."""
        for worker in self.workers.values():
            if worker.ready and worker.task is None and self.waiting:
                task = self.waiting.popleft()
                try:
                    worker.give(task)
                except OSError:  # it died meanwhile, as the line will say at once
                    worker.task = None
                    self.waiting.appendleft(task)
        starting = sum(not one.ready for one in self.workers.values())
        for _ in range(min(self.size - len(self.workers), len(self.waiting) - starting)):
            worker = _Worker(self.job, self.threads)
            self.workers[worker.line] = worker

    def _hear(self, worker: _Worker) -> Done | None:
        """What a process says: that it is ready, that a run ended, or nothing as it died."""
        try:
            done: Done | None = worker.line.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        worker.ready, worker.task = True, None
        return done

    def _bury(self, worker: _Worker) -> Done | None:
        del self.workers[worker.line]
        worker.stop()
        code = worker.process.exitcode
        killed = code is not None and code < 0
        if not worker.ready:
            self.stillborn += 1
            if killed and self.stillborn < LIVES:
                return None
            raise RunError(
                "a process for the runs that starts",
                f"one that ended with code {code} before its first run",
                "in a script, put what calls it under `if __name__ == '__main__':`; or use one "
                "worker",
            )
        task = worker.task
        if task is None:
            return None
        self.lives[task.folder] -= 1
        if killed and self.lives[task.folder]:
            self.waiting.appendleft(task)
            return None
        how = f"was killed {LIVES} times" if killed else f"ended by itself, code {code}"
        error = f"its process {how}; is there memory for that many workers?"
        return Done(task, time.monotonic() - worker.began, error)


def _threads() -> int:
    """Those of this process, which has torch already; the new ones get theirs by variables."""
    import torch

    return torch.get_num_threads()


def _serve(line: Connection, job: Job) -> None:
    """The life of a process: one run after another, until the line breaks."""
    # Ctrl-C at a terminal reaches all processes; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # as the command line does
    line.send(None)
    while True:
        try:
            task = line.recv()
        except EOFError:
            return
        line.send(attempt(job, task))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for the processes started inside: libraries read them when they are imported."""
    old = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
