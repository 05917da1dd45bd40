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
TAUGHT = (("bench-ml", "cm3"), ("synthetic-shop", "cm3"), ("synthetic-shop", "mmrec"))
"""Data sets and teachers of the tables of distillation."""
DISTILLED = (
    "ease",
    "vanilla",
    "warm-start-only",
    "full",
    "full: assistant",
    "per-user",
    "masses",
    "no-wasserstein",
    "paired",
    "no-assistant",
    "no-embedding",
    "with-ease",
    "from-random",
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


def table(names: dict[str, str], key: str, order: tuple[str, ...]) -> None:
    """Print rows with the results of all files, the best of each in bold.

    Args:
        names: the heading of each file of results, by its name.
        key: of the rows in a file.
        order: of the rows; "teacher" is the row that the file names so.
    """
    found = {}
    for name, heading in names.items():
        path = HERE / "results" / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text())
            rows = content[key]
            found[heading] = rows | {"teacher": rows.get(content.get("teacher"))}
    print("| Recall@20 / NDCG@20 | " + " | ".join(found) + " |")
    print("| --- |" + " --- |" * len(found))
    best = {
        name: {m: max(row[m] for row in rows.values() if row) for m in ("recall@20", "ndcg@20")}
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
    table({f"leaderboard-{name}": name for name in DATA}, "models", MODELS)
    print()
    taught = {f"distillation-{data}-{model}": f"{data}, {model}" for data, model in TAUGHT}
    table(taught, "rows", ("teacher", *DISTILLED))
    for model in ABLATED:
        print()
        ablations(model)


if __name__ == "__main__":
    main()
