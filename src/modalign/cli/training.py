"""`modalign train` and `modalign demo`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.encoding import encode_missing
from modalign.cli.options import (
    RUN_FIELDS,
    AgainFlags,
    Json,
    RunFlags,
    Seed,
    Sets,
    choose,
    own_options,
    refuse,
)
from modalign.cli.render import counting, err, out, plain, print_json, say, training
from modalign.cli.summaries import show_comparison, show_demo, show_signs, show_training, source_of
from modalign.core.settings import DEFAULT_SEED
from modalign_serve.command.grouped import grouped

TRAIN_EPILOG = """**Examples**

    modalign train --data data/ml --model cm3 --out runs/cm3 --seed 1 --set embedding_size=64

    modalign train --data data/ml --model cm3 --variant only-text --out runs/cm3-text

    modalign train --data data/ml --model lightgcn --config lightgcn.yaml --out runs/lightgcn

`modalign models NAME` shows a model's options and variants. Precedence: `--set`, then
`--config`, then `--variant`.
"""


@dataclass(frozen=True)
class ModelFlags:
    """A model and its options."""

    model: Annotated[str, typer.Option(help="A name from `modalign models`.")] = "cm3"
    config: Annotated[
        Path | None, typer.Option(help="YAML file of the model's options, one `key: value` a line.")
    ] = None
    sets: Sets = None
    variant: Annotated[str | None, typer.Option(help="A named ablation of the model.")] = None

    def options(self) -> dict[str, Any]:
        """The options; `--set` wins over `--config`, and that over `--variant`.

        Raises:
            UnknownName, ConfigError: no such model or variant, or an unreadable option.
        """
        from modalign.core import settings
        from modalign.models import _registry as registry

        spec, owner = registry.get(self.model), f"model {self.model}"
        taken = {"data", "model", "seed", *RUN_FIELDS}
        found: dict[str, Any] = {}
        if self.variant is not None:
            choose(f"variant of {self.model}", self.variant, spec.variants)
            found |= spec.variants[self.variant]
        if self.config is not None:
            found |= settings.read_yaml(self.config)
            refuse(found, taken, owner)
        found |= own_options(self.sets, taken, owner)
        settings.build(spec.config, found, owner)
        return found


@grouped
def train(
    data: Annotated[Path, typer.Option(help="Prepared folder.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    choice: ModelFlags,
    seed: Seed = DEFAULT_SEED,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write event files for TensorBoard.")
    ] = False,
    json: Json = False,
    *,
    flags: RunFlags,
    again: AgainFlags,
) -> None:
    """Train a model; the best epoch is picked on validation, the test split opened once.

    Training stops when validation Recall@20, or the metric `select_by` names, has not improved
    for `patience` evaluations; where few items are left to rank, NDCG takes the place of Recall.
    The run folder holds the options, the curves, the weights, and results.json. Data without any
    modality are encoded first where the model needs one, with the encoders it is made for.
    """
    from modalign.data.dataset import Dataset
    from modalign.experiments.fit import fit
    from modalign.models import _registry as registry

    spec = registry.get(choice.model)
    run = flags.options(
        out=out_folder,
        tensorboard=tensorboard,
        callbacks=training(choice.model),
        **again.options(),
    )
    options = choice.options()
    dataset = Dataset.load(data)
    if "modalities" in spec.needs and not dataset.modalities:
        dataset = encode_missing(dataset, spec.encoders, flags.device)
    if "modalities" in spec.needs:
        say(f"{choice.model} reads {_read(dataset, options)}", err)
    fitted = fit(dataset, choice.model, seed=seed, run=run, **options)
    if json:
        print_json(fitted.results)
    else:
        show_training(fitted.results)
        show_signs(fitted)
        say(f"written to {out_folder}; next: modalign recommend {out_folder} --user ID")


def _read(dataset: Any, options: dict[str, Any]) -> str:
    """The modalities that a training takes, with their encoders, and those that it leaves."""
    found = {name: m for name, m in sorted(dataset.modalities.items()) if m.entity == "item"}
    chosen = options.get("modalities") or list(found)
    taken = [f"{plain(n)} ({plain(source_of(found[n].provenance))})" for n in chosen if n in found]
    others = [plain(name) for name in found if name not in chosen]
    return f"{', '.join(taken) or 'no modality'}" + (f", not {', '.join(others)}" if others else "")


def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for everything.")] = Path(
        "demo"
    ),
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the shop, the split and the training.")
    ] = DEFAULT_SEED,
    json: Json = False,
) -> None:
    """Run every step on a synthetic shop that comes with modalign, in a few minutes.

    Draws the shop, encodes its texts and pictures, trains LightGCN and CM3, compresses CM3 into
    a small student, compares them all and writes a report to look at.
    """
    from modalign.cli import _demo as job

    with ExitStack() as stack:

        def encoding(name: str) -> Callable[[int, int], None]:
            stack.close()
            return stack.enter_context(counting("encoding", name))

        def stage(text: str) -> None:
            stack.close()
            err.print(f"[bold]{plain(text)}[/]", highlight=False)

        made = job.run(
            out_folder,
            seed,
            stage=stage,
            encoding=encoding,
            callbacks=training,
        )
    if json:
        print_json(
            {
                "report": str(made.report),
                "results": {name: one.results for name, one in made.fitted.items()},
                "comparison": made.comparison.to_dict(),
                "cost": made.cost.to_dict(),
            }
        )
        return
    say("\nA synthetic shop: drawn pictures, written texts, invented customers.", out)
    show_comparison(made.comparison)
    show_demo(made.fitted, made.cost)
    say(f"the report with pictures: {made.report}", out)
