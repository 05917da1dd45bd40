"""The tables of the README out of `benchmarks/results/leaderboard-*.json`.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
DATA = ("bench-ml", "bench-citeulike", "synthetic-shop")
ORDER = ("popularity", "itemknn", "ease", "bpr", "lightgcn", "vbpr", "freedom", "cm3")


def cell(row: dict | None, best: dict[str, float]) -> str:
    if row is None:
        return ""
    parts = []
    for metric in ("recall@20", "ndcg@20"):
        text = f"{row[metric]:.4f}"
        parts.append(f"**{text}**" if row[metric] == best[metric] else text)
    spread = f" ± {row['recall@20 deviation']:.4f}" if len(row["seeds"]) > 1 else ""
    return f"{parts[0]}{spread} / {parts[1]}"


def main() -> None:
    found = {
        name: json.loads(path.read_text())["models"]
        for name in DATA
        if (path := HERE / "results" / f"leaderboard-{name}.json").is_file()
    }
    print("| Recall@20 / NDCG@20 | " + " | ".join(found) + " |")
    print("| --- |" + " --- |" * len(found))
    best = {
        name: {m: max(row[m] for row in rows.values()) for m in ("recall@20", "ndcg@20")}
        for name, rows in found.items()
    }
    for model in ORDER:
        cells = [cell(rows.get(model), best[name]) for name, rows in found.items()]
        print(f"| {model} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
