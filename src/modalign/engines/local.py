"""Independent tasks in processes of this machine; when one process is killed the others go on.

A process takes one task after another, so that torch is imported and data are read once. It ends
when its parent does, however that ends: a killed sweep leaves no process behind that still writes
into its folders.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from modalign.errors import ModalignError, RunError

T = TypeVar("T")

ATTEMPTS = 3
"""How often a task is started whose process is killed each time."""
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Done(Generic[T]):
    """A task that ended.

    Attributes:
        value: what the job returned; None where it failed.
        error: why it failed, in one line; None where it did not.
    """

    task: T
    seconds: float
    value: Any = None
    error: str | None = None


def each(tasks: Sequence[T], job: Callable[[T], Any], workers: int = 1) -> Iterator[Done[T]]:
    """Run `job(task)` for every task; yields each in the order of completion.

    A `ModalignError`, a lack of memory or an error of a full GPU fails that task alone. A task
    whose process is killed is started again in a new process, three times in all.

    Args:
        tasks: what to do; picklable where there are several workers.
        job: a picklable callable.
        workers: number of processes, each with its share of torch's threads; 1 runs here.

    Raises:
        RunError: a process exits before its first task.

    Example:
        >>> sorted((done.task, done.value) for done in each([2, 3], abs))
        [(2, 2), (3, 3)]
    """
    if workers <= 1:
        yield from (attempt(job, task) for task in tasks)
    elif tasks:
        yield from _Pool(tasks, job, min(workers, len(tasks))).results()


def attempt(job: Callable[[T], Any], task: T) -> Done[T]:
    """One task, in this process."""
    began = time.monotonic()
    try:
        value = job(task)
    except (ModalignError, MemoryError, RuntimeError) as error:
        # What torch raises when a GPU is full is a RuntimeError like any other, but for its name.
        if isinstance(error, RuntimeError) and type(error).__name__ != "OutOfMemoryError":
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        return Done(task, time.monotonic() - began, error=reason)
    return Done(task, time.monotonic() - began, value)


class _Worker:
    """A process, the connection to it, and the index of its current task."""

    def __init__(self, job: Callable[[Any], Any], threads: int) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, job), daemon=True)
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(threads))):
            self.process.start()
        theirs.close()  # so that the connection breaks when the process dies
        self.ready, self.started_at = False, 0.0
        self.task: int | None = None

    def start(self, index: int, task: Any) -> None:
        self.task, self.started_at = index, time.monotonic()
        self.connection.send(task)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Pool(Generic[T]):
    """The worker processes and the tasks that are left; tasks are held by their index."""

    def __init__(self, tasks: Sequence[T], job: Callable[[T], Any], workers: int) -> None:
        self.tasks, self.job, self.size = tasks, job, workers
        self.waiting = deque(range(len(tasks)))
        self.killed: Counter[int] = Counter()
        self.killed_at_start = 0
        import torch  # has been imported already; workers get their threads by variables

        # Rounded down: two threads on one core wait for each other in every operation.
        self.threads = max(1, torch.get_num_threads() // workers)
        self.workers: dict[Connection, _Worker] = {}

    def results(self) -> Iterator[Done[T]]:
        try:
            while self.waiting or any(w.task is not None for w in self.workers.values()):
                self._assign()
                for connection in wait(list(self.workers)):
                    done = self._receive(self.workers[connection])  # type: ignore[index]
                    if done is not None:
                        yield done
        finally:
            for worker in self.workers.values():
                worker.stop()

    def _assign(self) -> None:
        """Give waiting tasks to idle workers, and start workers for the rest."""
        for worker in self.workers.values():
            if worker.ready and worker.task is None and self.waiting:
                index = self.waiting.popleft()
                try:
                    worker.start(index, self.tasks[index])
                except OSError:  # it died meanwhile; its broken connection is read next
                    worker.task = None
                    self.waiting.appendleft(index)
        starting = sum(not worker.ready for worker in self.workers.values())
        for _ in range(min(self.size - len(self.workers), len(self.waiting) - starting)):
            worker = _Worker(self.job, self.threads)
            self.workers[worker.connection] = worker

    def _receive(self, worker: _Worker) -> Done[T] | None:
        """A worker's message: None when it is ready, a result, or the end of its process."""
        try:
            done: Done[T] | None = worker.connection.recv()
        except (EOFError, OSError):
            return self._exited(worker)
        worker.ready, worker.task = True, None
        return done

    def _exited(self, worker: _Worker) -> Done[T] | None:
        """A worker's process ended: its task waits for another one, or has failed."""
        del self.workers[worker.connection]
        worker.stop()
        code = worker.process.exitcode
        was_killed = code is not None and code < 0
        if not worker.ready:
            self.killed_at_start += 1
            if was_killed and self.killed_at_start < ATTEMPTS:
                return None
            got = f"one that exited with code {code} before its first task"
            fix = "in a script, put the call under `if __name__ == '__main__':`; or use one worker"
            raise RunError("a worker process that starts", got, fix)
        index = worker.task
        if index is None:
            return None
        self.killed[index] += was_killed
        if was_killed and self.killed[index] < ATTEMPTS:
            self.waiting.appendleft(index)
            return None
        how = f"was killed {ATTEMPTS} times" if was_killed else f"exited with code {code}"
        error = f"its worker process {how}; is there enough memory for this number of workers?"
        return Done(self.tasks[index], time.monotonic() - worker.started_at, error=error)


def _work(connection: Connection, job: Callable[[Any], Any]) -> None:
    """The main function of a worker: one task after another, until the connection breaks."""
    # Ctrl-C at a terminal reaches all processes; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # as the command line does
    connection.send(None)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(attempt(job, task))


def _exit_with_parent() -> None:
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
