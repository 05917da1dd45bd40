"""`modalign train` and `modalign demo`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.render import Json, err, metric_table, out, print_json, progress

MASKS = ("strict", "train")


def register(root: typer.Typer) -> None:
    """Add the commands to the top level."""
    root.command()(train)
    root.command()(demo)


def parse_ks(text: str) -> list[int]:
    """`"10,20"` to `[10, 20]`."""
    from modalign.errors import ConfigError

    try:
        ks = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError("cut-offs such as 10,20,50", repr(text), "write --k 10,20") from error
    if min(ks) < 1:
        raise ConfigError("cut-offs of at least 1", repr(text), "write --k 10,20")
    return ks


def check_mask(mask: str) -> Any:
    """One of `MASKS`."""
    from modalign.errors import UnknownName

    if mask not in MASKS:
        raise UnknownName("mask", mask, MASKS)
    return mask


def train(
    data: Annotated[Path, typer.Option(help="Prepared folder.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    model: Annotated[str, typer.Option(help="A name from `modalign models`.")] = "cm3",
    seed: Annotated[int, typer.Option(help="All randomness derives from it.")] = 1,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of options; --set wins over it.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the model as key=value; repeat it."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="A named ablation of the model; --set wins over it.")
    ] = None,
    mask: Annotated[
        str,
        typer.Option(
            help="strict hides training and validation items in the test ranking; train hides "
            "training items only, as published numbers do."
        ),
    ] = "strict",
    k: Annotated[str, typer.Option(help="Cut-offs of the metrics.")] = "5,10,20,50",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true or bf16-mixed.")] = "32-true",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log for TensorBoard.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run, exactly.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run.")] = False,
    json: Json = False,
) -> None:
    """Train a model; the best epoch is picked on validation, the test split opened once.

    Stops when validation Recall@20 has not improved for `patience` evaluations. Example:

        modalign train --data data/ml --model cm3 --out runs/cm3 --seed 1 --set embedding_size=64
    """
    from modalign import experiment, registry, settings
    from modalign.data.dataset import Dataset
    from modalign.errors import UnknownName
    from modalign.train.callbacks import ProgressBar

    spec = registry.get(model)
    options: dict[str, Any] = {}
    if variant is not None:
        if variant not in spec.variants:
            raise UnknownName(f"variant of {model}", variant, spec.variants)
        options |= spec.variants[variant]
    if config is not None:
        options |= settings.read_yaml(config)
    options |= settings.parse_assignments(sets or [])
    if precision not in ("32-true", "bf16-mixed"):
        raise UnknownName("precision", precision, ("32-true", "bf16-mixed"))
    fitted = experiment.fit(
        Dataset.load(data),
        model,
        seed=seed,
        out=out_folder,
        mask=check_mask(mask),
        ks=parse_ks(k),
        device=device,
        precision=precision,  # type: ignore[arg-type]
        callbacks=[ProgressBar(err, model)],
        tensorboard=tensorboard,
        resume=resume,
        overwrite=overwrite,
        **options,
    )
    if json:
        print_json(fitted.results)
        return
    summary(fitted.results, out_folder)


def summary(results: dict[str, Any], folder: Path) -> None:
    """What came out of a training, for people."""
    r = results
    where = f"{r['dataset']}{' (synthetic)' if r['synthetic'] else ''}"
    out.print(
        f"[bold]{r['model']}[/] on {where}, seed {r['seed']}: {r['parameters']:,} parameters, "
        f"{r['epochs']} epochs in {r['seconds']:.1f} s, best epoch {r['best_epoch']}"
    )
    parts = {part: r[part] for part in ("valid", "test") if r[part]}
    out.print(metric_table(f"All items ranked, mask {r['mask']}", parts))
    err.print(f"written to {folder}; next: modalign recommend {folder} --user ID", markup=False)


def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for everything.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the shop, the split and the training.")] = 1,
    json: Json = False,
) -> None:
    """The main job on the embedded catalogue, a synthetic shop: make it, encode it, train
    LightGCN and CM3, compare them, write the report. A few minutes on two cores.
    """
    from modalign import demo as job
    from modalign.cli.results import show_comparison
    from modalign.train.callbacks import ProgressBar

    with ExitStack() as stack:

        def encoding(name: str) -> Callable[[int, int], None]:
            bar = stack.enter_context(progress("encoding"))
            task = bar.add_task(name, total=None)

            def told(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)
                if done == total:
                    bar.stop()

            return told

        made = job.run(
            out_folder,
            seed,
            stage=lambda text: err.print(f"[bold]{text}[/]"),
            encoding=encoding,
            callbacks=lambda name: [ProgressBar(err, name)],
        )
    if json:
        print_json(
            {
                "report": str(made.report),
                "results": {name: one.results for name, one in made.fitted.items()},
                "comparison": made.comparison.to_dict(),
            }
        )
        return
    out.print("\nA synthetic shop: drawn pictures, written texts, invented customers.")
    show_comparison(made.comparison)
    for name, one in made.fitted.items():
        r = one.results
        out.print(f"{name}: {r['parameters']:,} parameters, {r['seconds']:.0f} s of training")
    out.print(f"the report with pictures: {made.report}", markup=False)
