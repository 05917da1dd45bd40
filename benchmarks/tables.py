"""Print the tables of the README and the guides from `benchmarks/results/*.json`.

python benchmarks/tables.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HERE = Path(__file__).parent
DATA = ("bench-ml", "bench-citeulike", "synthetic-shop")
MODELS = (
    "popularity",
    "itemknn",
    "ease",
    "bpr",
    "lightgcn",
    "multivae",
    "vbpr",
    "freedom",
    "cm3",
    "mmssl",
    "bandvae",
    "recgoat",
)
LEVEL = 0.05
ABLATED = ("mmssl", "bandvae", "recgoat")
DISTILLED = (
    "cm3",
    "ease",
    "vanilla",
    "no-assistant-no-wasserstein",
    "no-assistant",
    "no-wasserstein",
    "no-embedding",
    "full: assistant",
    "full",
    "sort",
    "with-ease",
    "as-printed",
)


def cell(row: dict | None, best: dict[str, float]) -> str:
    if row is None:
        return ""
    parts = []
    for metric in ("recall@20", "ndcg@20"):
        text = f"{row[metric]:.4f}"
        parts.append(f"**{text}**" if row[metric] == best[metric] else text)
    spread = f" ± {row['recall@20 deviation']:.4f}" if len(row["seeds"]) > 1 else ""
    return f"{parts[0]}{spread} / {parts[1]}"


def table(kind: str, key: str, order: tuple[str, ...]) -> None:
    """Print rows with the results on all data sets, the best of each in bold."""
    found = {
        name: json.loads(path.read_text())[key]
        for name in DATA
        if (path := HERE / "results" / f"{kind}-{name}.json").is_file()
    }
    print("| Recall@20 / NDCG@20 | " + " | ".join(found) + " |")
    print("| --- |" + " --- |" * len(found))
    best = {
        name: {m: max(row[m] for row in rows.values()) for m in ("recall@20", "ndcg@20")}
        for name, rows in found.items()
    }
    for row in order:
        cells = [cell(rows.get(row), best[name]) for name, rows in found.items()]
        print(f"| {row} | " + " | ".join(cells) + " |")


def ablations(model: str) -> None:
    """Print what each variant of a model reaches; a star marks a significant difference."""
    found = {
        name: json.loads(path.read_text())["rows"]
        for name in DATA
        if (path := HERE / "results" / f"ablation-{name}-{model}.json").is_file()
    }
    print("| Recall@20 / NDCG@20 | " + " | ".join(found) + " |")
    print("| --- |" + " --- |" * len(found))
    for row in dict.fromkeys(row for rows in found.values() for row in rows):
        cells = []
        for rows in found.values():
            one = rows.get(row)
            marks = [
                "*" if one and one.get(f"{metric} p", 1.0) < LEVEL else ""
                for metric in ("recall@20", "ndcg@20")
            ]
            cells.append(
                f"{one['recall@20']:.4f}{marks[0]} ± {one['recall@20 deviation']:.4f}"
                f" / {one['ndcg@20']:.4f}{marks[1]}"
                if one
                else ""
            )
        print(f"| `{row}` | " + " | ".join(cells) + " |")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    table("leaderboard", "models", MODELS)
    print()
    table("distillation", "rows", DISTILLED)
    for model in ABLATED:
        print()
        ablations(model)


if __name__ == "__main__":
    main()
