"""Peak memory and time of importing a large CSV file, in a separate process.

    python benchmarks/import_large.py --rows 20000000 --out benchmarks/results/import_large.json

A seeded file of numeric user and item ids, ratings and times is written to a temporary folder and
imported with a 5-core and the ratio split. Popular items occur more often, as in real logs, so that
pairs repeat and the filters remove rows. The baseline is a process that only imports the package.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

LIMIT_GIB = 4.0


def write_table(path: Path, rows: int, seed: int = 1) -> None:
    """Write the CSV file in pieces, so that this process needs little memory."""
    generator = np.random.default_rng(seed)
    n_users, n_items = max(rows // 150, 10), max(rows // 750, 10)
    with path.open("wb") as file:
        for start in range(0, rows, 1_000_000):
            n = min(1_000_000, rows - start)
            piece = pl.DataFrame(
                {
                    "userId": 1 + (n_users * generator.random(n) ** 1.5).astype(np.int64),
                    "movieId": 1 + 7 * (n_items * generator.random(n) ** 2).astype(np.int64),
                    "rating": generator.integers(1, 11, n) / 2,
                    "timestamp": 1_000_000_000 + generator.integers(0, 600_000_000, n),
                }
            )
            piece.write_csv(file, include_header=start == 0)


def import_table(path: Path | None, out: Path) -> dict[str, float]:
    """The work of one process; with `path` None it only imports the package."""
    from modalign.data.prepare import prepare
    from modalign.data.sources.flat_table import read

    start, stages = time.perf_counter(), {}

    def tell(stage: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        stages[f"before {stage}"] = [round(time.perf_counter() - start, 2), round(peak, 3)]

    result: dict[str, object] = {}
    if path is not None:
        data = prepare(read(path), out, k_core=5, seed=1, progress=tell)
        result = {"interactions": len(data.train) + len(data.valid) + len(data.test),
                  "users": data.n_users, "items": data.n_items}  # fmt: skip
    result["seconds"] = round(time.perf_counter() - start, 2)
    result["stages (seconds, peak GiB so far)"] = stages
    # Linux counts in KiB.
    result["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)
    return result  # type: ignore[return-value]


def child(*arguments: str) -> dict[str, float]:
    """Run this file in a new process and return its measurements."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        path, out = arguments.child
        print(json.dumps(import_table(Path(path) if path else None, Path(out))))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "log.csv"
        write_table(table, arguments.rows)
        result = {
            "rows": arguments.rows,
            "file_gib": round(table.stat().st_size / 2**30, 3),
            "baseline": child("--child", "", str(Path(folder) / "none")),
            "import": child("--child", str(table), str(Path(folder) / "data")),
            "limit_gib": LIMIT_GIB,
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "polars": pl.__version__,
            },
        }
    result["within_limit"] = result["import"]["peak_gib"] <= LIMIT_GIB
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
