"""Figure 3 of the CM3 paper, for any model: items without training interactions."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from modalign.core.interfaces import Recommender
from modalign.data.dataset import Dataset
from modalign.evaluate.protocol import Candidates, Evaluator
from modalign.export.content import Choice, fit_map, read_content, train_adapter
from modalign.report.paper_figures import canvas
from modalign.report.paper_figures.figure import Drawn, Material, Subject, figure
from modalign.report.style import FAINT, colour, short

K = 20
AT_LEAST = 0.05
"""Share of the test interactions that are of cold items; a random split has a few by chance."""
AMONG: dict[Candidates, str] = {"all": "among all items", "cold": "among cold items"}
WAYS = {"own": "the model's own ranking", "adapter": "with the adapter of export"}


class Placed(Recommender):
    """Fixed vectors of users and items."""

    def __init__(self, users: np.ndarray, items: np.ndarray) -> None:
        nn.Module.__init__(self)
        self.vectors = torch.from_numpy(users).float(), torch.from_numpy(items).float()

    def tables(self) -> tuple[Tensor, Tensor]:
        """The vectors."""
        return self.vectors


@figure(
    "cold-items",
    needs=f"runs on data whose test part has {AT_LEAST:.0%} or more interactions with items that "
    "training lacks, such as `--split cold-items`",
)
def cold_items(material: Material) -> Drawn | None:
    """Recall of cold items: the model's own, and with vectors from the content adapter."""
    data, cold = material.dataset, ~material.trained["items"]
    if cold[data.test.items].sum() < max(1, AT_LEAST * len(data.test)):
        return None
    rows = [row for run in material.runs for row in _measured(data, run)]
    found = pl.DataFrame(rows)
    drawing, grid = canvas.panels(1, 2, (max(8.2, 2.4 * len(material.runs)), 3.4))
    handles: dict[str, Any] = {}
    for axes, (among, title) in zip(grid.flat, AMONG.items(), strict=True):
        for place, (way, text) in enumerate(WAYS.items()):
            some = found.filter(pl.col("ranking") == way)
            names = [run.name for run in material.runs]
            x = [names.index(name) + 0.4 * place - 0.2 for name in some["run"]]
            paint = (FAINT, colour(0))[place]
            bars = axes.bar(x, some[among], 0.36, color=paint, hatch=("", "//")[place])
            axes.bar_label(bars, fmt="%.3f", fontsize=8)
            if len(bars):
                handles[text] = bars
        axes.margins(y=0.1)
        names = [textwrap.fill(short(run.name), 16) for run in material.runs]
        axes.set_xticks(range(len(names)), names)
        axes.grid(visible=False, axis="x")
        canvas.label(axes, title, "", f"recall@{K}")
    canvas.legend(drawing, handles)
    relevant = int(cold[data.test.items].sum())
    return Drawn(
        "CM3, figure 3: cold items",
        f"{int(cold.sum()):,} of {len(cold):,} items ({cold.mean():.0%}) have no training "
        f"interaction; Recall@{K} of the {relevant:,} test interactions, ranked among all items "
        "(those with training interactions compete), and, of the cold ones only, among cold "
        "items. With the adapter, cold items have the vector that the content adapter of "
        "`modalign export` predicts from their features, which a server uses. Look for a model "
        "whose own bar reaches its adapter's: it places a new item as well itself.",
        drawing,
        found,
        [
            {"run": f"{row['run']}: {WAYS[row['ranking']]}"} | {key: row[key] for key in AMONG}
            for row in rows
        ],
    )


def _measured(data: Dataset, run: Subject) -> list[dict[str, Any]]:
    mask = run.fitted.results["mask"]
    models: dict[str, Recommender] = {"own": run.fitted.model}
    features = run.fitted.dataset.view().modalities
    if run.vectors is not None and features:
        models["adapter"] = Placed(run.vectors[0], adapted(run, *run.vectors))
    return [
        {"run": run.name, "ranking": way}
        | {
            among: Evaluator(data, "test", mask, (K,), ("recall",), candidates=among)
            .run(model)
            .metrics[f"recall@{K}"]
            for among in AMONG
        }
        for way, model in models.items()
    ]


def adapted(run: Subject, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Vectors of items where the cold ones have those of the adapter that export selects.

    Args:
        run: its data and seed.
        users: (n_users, d).
        items: (n_items, d).
    """
    data, seed = run.fitted.dataset, run.fitted.seed
    history = data.train.csr(data.n_users, data.n_items)
    warm = np.unique(history.indices)
    cold = np.setdiff1d(np.arange(data.n_items), warm)
    content = read_content(data.view().modalities, warm, seed)
    tables = users.astype(np.float32), items.astype(np.float32)
    report = train_adapter(content, *tables, history, seed).report
    choice = Choice(report["reg"], report["transport_weight"], report["hidden"])
    placed = tables[1].copy()
    placed[cold] = fit_map(content.x[warm], tables[1][warm], choice, seed)(content.x[cold])
    return placed
