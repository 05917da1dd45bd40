"""ranx as an oracle, in a process of its own: compiling it takes a minute, not compiling it none.

    NUMBA_DISABLE_JIT=1 python ranx_apart.py < {"qrels": ..., "run": ..., "metrics": [...]}

prints `{"recall@5": {user: value, ...}, ...}`.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    from ranx import Qrels, Run, evaluate

    asked = json.load(sys.stdin)
    run = Run(asked["run"])
    evaluate(Qrels(asked["qrels"]), run, asked["metrics"], make_comparable=True)
    scores = {m: {u: float(v) for u, v in of.items()} for m, of in run.scores.items()}
    json.dump(scores, sys.stdout)


if __name__ == "__main__":
    main()
