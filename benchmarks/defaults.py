"""Values among which the defaults of the simple models were chosen, on validation.

    python benchmarks/defaults.py --data data/bench-ml
    python benchmarks/defaults.py --data data/bench-ml --models vbpr,bpr

One run of each with seed 1, all other options at their defaults. A data set's lines replace its
earlier ones in `benchmarks/results/defaults.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _common import RESULTS

from modalign.data.dataset import Dataset
from modalign.experiments.fit import fit

GRID: dict[str, list[dict[str, Any]]] = {
    "itemknn": [
        {"weighting": weighting, "shrinkage": shrinkage}
        for weighting in ("none", "tfidf")
        for shrinkage in (3, 10, 30, 100)
    ],
    "bpr": [{"reg": reg} for reg in (0.001, 0.01, 0.03, 0.1)],
    "vbpr": [
        {"feature_norm": "l2", "reg_projection": 0.0},
        {"feature_norm": "centred", "reg_projection": 0.0},
        {"feature_norm": "centred", "reg_projection": 0.001},
        {"feature_norm": "centred", "reg_projection": 0.01},
    ],
    "ease": [{}],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", default=",".join(GRID))
    args = parser.parse_args()
    dataset = Dataset.load(args.data)
    path = RESULTS / "defaults.json"
    kept = json.loads(path.read_text()) if path.is_file() else []
    for model in args.models.split(","):
        rows = []
        for options in GRID[model]:
            found = fit(dataset, model, seed=1, mask="train", progress=False, **options).results
            rows.append(
                {
                    "data": dataset.name,
                    "model": model,
                    "options": options | found.get("chosen", {}),
                    "valid recall@20": round(found["valid"]["recall@20"], 4),
                    "test recall@20": round(found["test"]["recall@20"], 4),
                    "test ndcg@20": round(found["test"]["ndcg@20"], 4),
                }
            )
            print(rows[-1], flush=True)
        kept = [one for one in kept if (one["data"], one["model"]) != (dataset.name, model)] + rows
        path.write_text("[\n " + ",\n ".join(json.dumps(one) for one in kept) + "\n]\n")


if __name__ == "__main__":
    main()
