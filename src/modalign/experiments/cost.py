"""What a trained model costs to query: latency, memory and parameters, measured.

    profile(["runs/teacher", "runs/student"]).to_dict()

Two ways of answering are timed, because papers mix them. *Anew*: the whole forward pass, then
scoring and the top of the list; this is the cost of a system that recomputes for each query, and
what the published latencies of graph models measure. *From tables*: user and item vectors are kept
in memory, as in a service; a model that is no product of two tables scores as it is. Every run is
measured in its own process, so that no run leaves memory, threads or warm caches to the next.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from modalign.core import devices, seeds
from modalign.core.interfaces import Recommender, Scorer
from modalign.errors import ConfigError, InputError, ModalignError, RunError
from modalign.evaluate.ranking import Ranking, rank
from modalign.experiments import fit as experiment
from modalign.experiments import run_folder
from modalign.experiments.fitted import FittedModel
from modalign.nn.modality_input import ModalityInput

WARM_UP = 3
FEWEST = 20
"""Minimum number of timed calls, however long they take."""
SECONDS = 10.0
"""Seconds after which a measurement starts no further call, once it has made `FEWEST`."""
BLOCK = 1024
MIB = 2**20
CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a call.

    Attributes:
        p50: the median.
        p99: the 99th percentile, between the two nearest calls by linear interpolation.
        cpu: median of the processor's time, all threads together; on one thread of a machine
            with nothing else to do it is p50, on a busy machine it is the steadier of the two.
        calls: number of timed calls; below a few hundred, p99 is little more than the slowest.
    """

    p50: float
    p99: float
    cpu: float
    calls: int


@dataclass(frozen=True)
class ParameterCount:
    """Numbers that a model consists of.

    Attributes:
        trainable: trained by gradients.
        with_features: these, the frozen features it holds (as wide as it holds them), and
            numbers solved in closed form. Graphs are not counted, as in publications.
    """

    trainable: int
    with_features: int


@dataclass(frozen=True)
class RunCost:
    """What one run costs.

    Attributes:
        anew_one, anew_batch: forward pass and top k, for one user and for a batch.
        tables_one, tables_batch: top k from tables computed before.
        anew_mib, tables_mib: peak memory while a batch is answered, MiB; see `profile`. None
            on processors of other systems than Linux.
    """

    run: str
    model: str
    anew_one: Latency
    anew_batch: Latency
    tables_one: Latency
    tables_batch: Latency
    parameters: ParameterCount
    anew_mib: float | None
    tables_mib: float | None

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> RunCost:
        """The inverse of `dataclasses.asdict`."""
        latencies = {
            n: Latency(**v) for n, v in found.items() if isinstance(v, dict) and "p50" in v
        }
        return cls(**{**found, **latencies, "parameters": ParameterCount(**found["parameters"])})


@dataclass(frozen=True)
class Ratios:
    """How much cheaper a run is than the first one; above 1 is cheaper.

    Attributes:
        anew_one, anew_batch, tables_one, tables_batch: medians of the first over medians of
            this run, like for like.
        served_one, served_batch: the first asked anew over this run asked from its tables:
            what replacing a model that recomputes by one in service saves.
        parameters, with_features: counts of the first over counts of this run; None where this
            run has none.
        anew_mib, tables_mib: peak memory of the first over that of this run.
    """

    run: str
    anew_one: float
    anew_batch: float
    tables_one: float
    tables_batch: float
    served_one: float
    served_batch: float
    parameters: float | None
    with_features: float | None
    anew_mib: float | None
    tables_mib: float | None


@dataclass(frozen=True)
class Profile:
    """What `profile` found, with the runs in the order asked for.

    Attributes:
        runs: in the order asked for.
        batch, k, threads, device: how it was measured.
        environment: versions and processor.
    """

    runs: tuple[RunCost, ...]
    batch: int
    k: int
    threads: int
    device: str
    environment: dict[str, Any]

    @property
    def ratios(self) -> tuple[Ratios, ...]:
        """Every later run against the first."""
        return tuple(_ratios(self.runs[0], other) for other in self.runs[1:])

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**dataclasses.asdict(self), "ratios": [dataclasses.asdict(r) for r in self.ratios]}


def profile(
    runs: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    batch: int = 256,
    k: int = 20,
    threads: int = 1,
    device: str = "auto",
    repeats: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Measure run folders one after the other, each in a new process.

    A call draws its users at random among those with training interactions, scores all items,
    hides what a user had in training and validation, and lists the best `k`. A batch is scored
    at once, up to 1,024 users.

    Memory is the size of what is kept to answer (parameters, features and graph, or the tables
    alone; the users' items), plus the growth of the process's resident memory at its peak while
    it answers a batch. Libraries and data on disk, the same for all runs, are not counted. On
    CUDA it is the peak of the allocator.

    Args:
        runs: folders written by `modalign train` or `distill`, on the same data.
        data: the prepared data, if they have moved since the training.
        batch: users in a batch.
        k: length of the lists.
        threads: of the processor.
        device: "auto", "cpu", "cuda", "cuda:N".
        repeats: calls to time for each of the four latencies; fewer, but at least 20, where
            they take longer than ten seconds.
        progress: called with the number of finished runs and of all runs.

    Raises:
        RunError: a run is missing, unfinished, damaged, or on other data than the first.
        ConfigError: an option is out of its bounds.

    Limits: a busy machine interrupts long calls and not short ones, so that ratios of the two are
    too favourable; compare `Latency.cpu` there.
    """
    _check(runs, batch, k, threads, repeats)
    where = str(devices.resolve(device))
    _check_same_data([Path(run) for run in runs])
    found = []
    for done, run in enumerate(runs):
        if progress is not None:
            progress(done, len(runs))
        options = {"batch": batch, "k": k, "threads": threads, "device": where, "repeats": repeats}
        folder = None if data is None else str(data)
        found.append(_in_a_process_of_its_own({"run": str(run), "data": folder, **options}))
    if progress is not None:
        progress(len(runs), len(runs))
    environment = {**run_folder.environment(), "threads": threads}
    return Profile(tuple(found), batch, k, threads, where, environment)


def count_parameters(model: Recommender) -> ParameterCount:
    """The numbers a model is made of.

    Example:
        >>> from modalign.models.bpr import BPR, BPRConfig
        >>> from modalign.testing.toy import tiny_view
        >>> count_parameters(BPR(BPRConfig(embedding_size=2), tiny_view()))
        ParameterCount(trainable=14, with_features=14)
    """
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    inputs = [m for m in model.modules() if isinstance(m, ModalityInput)]
    features = {m.features.data_ptr(): m.features.numel() for m in inputs}
    saved = model.state_dict()
    solved = sum(
        buffer.numel()
        for name, buffer in model.named_buffers()
        if name in saved and buffer.is_floating_point()
    )
    return ParameterCount(trainable, trainable + sum(features.values()) + solved)


def latency(call: Callable[[], object], repeats: int, seconds: float = SECONDS) -> Latency:
    """Time a call after a few calls that are not counted.

    Args:
        call: what is timed.
        repeats: number of timed calls; fewer, but at least 20, where they take longer than
            `seconds`.
        seconds: after which no further call starts.

    Example:
        >>> latency(lambda: None, 30).calls
        30
    """
    for _ in range(WARM_UP):
        call()
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < repeats and (len(times) < FEWEST or time.perf_counter() < end):
        start = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = np.asarray(times).T * 1e3
    p50, p99 = np.percentile(wall, [50, 99])
    return Latency(float(p50), float(p99), float(np.median(cpu)), len(times))


class Asker:
    """Asks a model for the best k items of users drawn at random, seen items hidden.

    Holds the model and the users' items, and nothing else of the data set.
    """

    def __init__(self, fitted: FittedModel, k: int, device: str) -> None:
        history = fitted.dataset.history
        self.k, self.device = k, device
        self.read, self.seen = history.read(), history.known
        self.reads_history = "history" in fitted.spec.needs
        self.users = np.flatnonzero(history.trained)
        self.rng = seeds.numpy_generator(0, "profile")

    def draw(self, n: int) -> np.ndarray:
        """`n` users, with repeats: a batch may be larger than the number of users."""
        return self.users[self.rng.integers(len(self.users), size=n)]

    def ask(self, scorer: Scorer, users: np.ndarray) -> Ranking:
        """The best k items of each."""
        return rank(
            scorer,
            users,
            self.k,
            seen=self.seen,
            history=self.read if self.reads_history else None,
            block=min(len(users), BLOCK),
            device=self.device,
        )


def _check(runs: Sequence[Any], batch: int, k: int, threads: int, repeats: int) -> None:
    if not runs:
        raise ConfigError("at least one run folder", "none", "name the runs to measure")
    for name, value in (("batch", batch), ("k", k), ("threads", threads), ("repeats", repeats)):
        if value < 1:
            raise ConfigError(f"{name} of at least 1", str(value), f"give a larger {name}")
    cores = os.cpu_count() or 1
    if threads > cores:
        expected = f"at most as many threads as the machine has cores, {cores}"
        raise ConfigError(expected, str(threads), "leave the option out for one thread")


def _check_same_data(runs: Sequence[Path]) -> None:
    first = run_folder.read_run(runs[0])[0]["fingerprint"]
    for run in runs[1:]:
        other = run_folder.read_run(run)[0]["fingerprint"]
        if other != first:
            got = f"{run} on data with fingerprint {other}"
            fix = "profile runs on different data one by one: cost grows with the catalogue"
            raise RunError(f"runs on the same data as {runs[0]} (fingerprint {first})", got, fix)


def _in_a_process_of_its_own(request: dict[str, Any]) -> RunCost:
    threads = {name: str(request["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", "from modalign.experiments import cost; cost.answer()"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, **threads},
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModalignError(
            f"measuring {request['run']} ended with exit code {done.returncode}: {last}"
        )
    found = json.loads(done.stdout.splitlines()[-1])
    if "error" in found:
        raise RunError(*found["error"])
    return RunCost.from_dict(found)


def answer() -> None:
    """The measuring process: a request as JSON on standard input, a `RunCost` on standard output.

    A user's mistake is answered by its three facts, under "error".
    """
    request = json.load(sys.stdin)
    try:
        found = dataclasses.asdict(_measure(**request))
    except InputError as error:
        found = {"error": [error.expected, error.got, error.fix]}
    sys.stdout.write(json.dumps(found) + "\n")


def _measure(
    run: str, data: str | None, batch: int, k: int, threads: int, device: str, repeats: int
) -> RunCost:
    torch.set_num_threads(threads)
    fitted = experiment.load_model(run, data, device)
    model, name, asker = fitted.model, fitted.spec.name, Asker(fitted, k, device)
    del fitted
    counts = count_parameters(model)
    anew = _cost(asker, model.scorer, model, batch, repeats)
    scorer = model.scorer()
    del model  # tables are all that is left of a factorised model
    tables = _cost(asker, lambda: scorer, scorer, batch, repeats)
    return RunCost(run, name, *anew[:2], *tables[:2], counts, anew[2], tables[2])


def _cost(
    asker: Asker, scorer: Callable[[], Scorer], kept: Scorer, batch: int, repeats: int
) -> tuple[Latency, Latency, float | None]:
    """Time for one user, time for a batch, and peak memory of a batch."""

    def call(n: int) -> Ranking:
        return asker.ask(scorer(), asker.draw(n))

    one = latency(lambda: call(1), repeats)
    many = latency(lambda: call(batch), repeats)
    return one, many, peak_mib(lambda: call(batch), [kept, asker], asker.device)


def peak_mib(
    call: Callable[[], object], kept: Sequence[object], device: str = "cpu"
) -> float | None:
    """Memory of what is kept, plus the peak of a call above it, in MiB.

    Args:
        call: what is measured. On the CPU, call it once before, so that what it loads once does
            not count.
        kept: objects whose tensors and sparse matrices are counted, each piece of memory once.
        device: "cpu" or "cuda".

    Returns:
        MiB, or None on a CPU whose system does not report it (all but Linux).
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() / MIB
    if not CLEAR_REFS.exists():
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # what loading freed is no cost of scoring
    CLEAR_REFS.write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    call()
    return (max(_status("VmHWM") - before, 0) + _bytes(kept)) / MIB


def _bytes(kept: Sequence[object]) -> int:
    """Bytes of the tensors and arrays that objects hold as attributes."""
    sizes: dict[int, int] = {}
    for one in kept:
        parts = (
            [*one.parameters(), *one.buffers()]
            if isinstance(one, torch.nn.Module)
            else list(vars(one).values())
        )
        for part in parts:
            if isinstance(part, torch.Tensor):
                sizes[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
            elif isinstance(part, sp.csr_array):
                arrays = (part.data, part.indices, part.indptr)
                sizes.update({array.ctypes.data: array.nbytes for array in arrays})
    return sum(sizes.values())


def _status(field: str) -> int:
    """A line of Linux's /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ModalignError(f"/proc/self/status has no line {field}")


def _ratios(first: RunCost, other: RunCost) -> Ratios:
    timed = ("anew_one", "anew_batch", "tables_one", "tables_batch")
    return Ratios(
        run=other.run,
        **{name: getattr(first, name).p50 / getattr(other, name).p50 for name in timed},
        served_one=first.anew_one.p50 / other.tables_one.p50,
        served_batch=first.anew_batch.p50 / other.tables_batch.p50,
        parameters=_over(first.parameters.trainable, other.parameters.trainable),
        with_features=_over(first.parameters.with_features, other.parameters.with_features),
        anew_mib=_over(first.anew_mib, other.anew_mib),
        tables_mib=_over(first.tables_mib, other.tables_mib),
    )


def _over(first: float | None, other: float | None) -> float | None:
    return first / other if first is not None and other else None
