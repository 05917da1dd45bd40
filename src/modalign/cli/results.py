"""`modalign evaluate`, `compare`, `recommend`, `report`: what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.render import Json, err, metric_table, out, print_json, table
from modalign.cli.training import check_mask, parse_ks

Runs = Annotated[list[Path], typer.Argument(help="Run folders.")]
Data = Annotated[Path | None, typer.Option(help="The prepared data, where they have moved since.")]


def register(root: typer.Typer) -> None:
    """Add the commands to the top level."""
    root.command()(evaluate)
    root.command()(compare)
    root.command()(recommend)
    root.command()(similar)
    root.command()(report)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    mask: Annotated[
        str | None, typer.Option(help="strict or train; that of the run where left out.")
    ] = None,
    k: Annotated[str, typer.Option(help="Cut-offs of the metrics.")] = "5,10,20,50",
    split: Annotated[str, typer.Option(help="valid or test.")] = "test",
    candidates: Annotated[
        str, typer.Option(help="all items, or cold: only items without training interactions.")
    ] = "all",
    groups: Annotated[
        bool, typer.Option("--groups", help="Also by user activity and item popularity.")
    ] = False,
    data: Data = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    json: Json = False,
) -> None:
    """Measure a trained model again: another mask, other cut-offs, cold items, groups."""
    from modalign.evaluate.groups import activity_groups, popularity_groups
    from modalign.experiment import load_model

    fitted = load_model(run, data, device)
    mask = check_mask(mask or fitted.results["mask"])
    ks = parse_ks(k)
    found = fitted.evaluate(split, mask=mask, ks=ks, candidates=candidates)
    frames: dict[str, Any] = {}
    if groups:
        frames["user activity"] = activity_groups(found.per_user, ks=ks)
        frames["item popularity"] = popularity_groups(found, fitted.dataset, ks=ks)
    if json:
        print_json(
            {
                "run": str(run),
                "model": fitted.spec.name,
                "data": fitted.dataset.fingerprint,
                "split": split,
                "mask": mask,
                "candidates": candidates,
                "users": found.n_users,
                "metrics": found.metrics,
                **({"groups": {n: f.to_dicts() for n, f in frames.items()}} if groups else {}),
            }
        )
        return
    title = f"{fitted.spec.name}, {split}, mask {mask}, {found.n_users:,} users"
    out.print(metric_table(title, {fitted.spec.name: found.metrics}))
    for name, frame in frames.items():
        rows = [[f"{v:.4f}" if isinstance(v, float) else v for v in row] for row in frame.rows()]
        out.print(table(f"By {name}", frame.columns, rows, range(1, frame.width)))


def compare(
    runs: Runs,
    k: Annotated[str, typer.Option(help="Cut-offs to show.")] = "10,20",
    alpha: Annotated[float, typer.Option(help="Level of the corrected tests.")] = 0.05,
    json: Json = False,
) -> None:
    """Metrics side by side with paired tests over users, Holm-corrected.

    A winner is named only where it differs significantly from every other run. Runs of the
    same model and options with other seeds are averaged per user first. Runs on other data
    or with another mask are refused.
    """
    from modalign.evaluate.compare import compare as run_compare
    from modalign.evaluate.compare import read_run

    found = run_compare([read_run(run) for run in runs], ks=parse_ks(k), alpha=alpha)
    if json:
        print_json(found.to_dict())
        return
    show_comparison(found)


def show_comparison(found: Any) -> None:
    """A comparison as tables."""
    names = list(found.names)
    rows = []
    for metric, values in found.metrics.items():
        winner = found.winners.get(metric)
        cells = [
            f"[bold green]{values[n]:.4f} *[/]" if n == winner else f"{values[n]:.4f}"
            for n in names
        ]
        rows.append([metric, *cells, winner or "none"])
    title = f"{found.n_users:,} users, mask {found.mask}; * better than every other run"
    out.print(table(title, ["metric", *names, "winner"], rows, range(1, len(names) + 1)))
    rows = [
        [t.metric, f"{t.a} - {t.b}", f"{t.difference:+.4f}", f"{t.low:+.4f} to {t.high:+.4f}",
         f"{t.p:.2g}", f"{t.p_corrected:.2g}", "yes" if t.significant else "no"]
        for t in found.tests
    ]  # fmt: skip
    columns = ["metric", "runs", "difference", "95% interval", "p", "p (Holm)", "significant"]
    out.print(table("Paired tests over users", columns, rows, range(2, 6)))


def recommend(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    user: Annotated[list[str], typer.Option(help="User id; repeat it for several.")],
    k: Annotated[int, typer.Option("-k", "--k", help="How many items.")] = 10,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Also list what the user had already.")
    ] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Titles and scores for a user, with what the user liked beside them.

    Items of the user's test part are marked: they were hidden in training.
    """
    from modalign.experiment import load_model
    from modalign.report.lists import hidden_items, liked

    fitted = load_model(run, data)
    frame = fitted.recommend(user, k, filter_seen=not keep_seen)
    documents = []
    for one in user:
        mine = frame.filter(frame["user_id"] == one)
        before = liked(fitted.dataset, one)
        hits = hidden_items(fitted.dataset, one)
        documents.append(
            {
                "user": one,
                "liked": before,
                "recommended": [
                    {**row, "hit": row["item_id"] in hits}
                    for row in mine.drop("user_id").to_dicts()
                ],
            }
        )
    if json:
        print_json(documents)
        return
    for document in documents:
        before = document["liked"]
        rows = []
        for place in range(max(len(document["recommended"]), min(len(before), k))):
            got = document["recommended"][place] if place < len(document["recommended"]) else None
            rows.append(
                [
                    "" if got is None else got["rank"],
                    ""
                    if got is None
                    else ("[green]* [/]" if got["hit"] else "  ") + _plain(got["title"]),
                    "" if got is None else f"{got['score']:.3f}",
                    _plain(before[place]["title"]) if place < len(before) else "",
                ]
            )
        title = f"{fitted.spec.name} for user {document['user']} (* in the hidden test part)"
        heading = f"liked before ({len(before)} in all)"
        out.print(table(title, ["", "recommended", "score", heading], rows, (0, 2)))


def similar(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    item: Annotated[list[str], typer.Option(help="Item id; repeat it for several.")],
    k: Annotated[int, typer.Option("-k", "--k", help="How many items.")] = 10,
    data: Data = None,
    json: Json = False,
) -> None:
    """The items nearest to an item in the trained space."""
    from modalign.experiment import load_model

    fitted = load_model(run, data)
    frame = fitted.similar_items(item, k)
    if json:
        print_json(frame.to_dicts())
        return
    titles = dict(zip(fitted.dataset.items, fitted.dataset.titles(), strict=True))
    for one in item:
        rows = [
            [r["rank"], _plain(r["title"]), f"{r['score']:.3f}", r["similar_item_id"]]
            for r in frame.filter(frame["item_id"] == one).to_dicts()
        ]
        title = f"Like {titles[one]} (item {one})"
        out.print(table(title, ["", "title", "score", "item"], rows, (0, 2)))


def report(
    runs: Runs,
    out_file: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path(
        "report.html"
    ),
    users: Annotated[int, typer.Option(help="Users in the gallery.")] = 6,
    data: Data = None,
    json: Json = False,
) -> None:
    """One self-contained page: curves, metrics, tests, groups, a gallery with pictures."""
    from modalign.report.page import write_report

    with err.status("drawing"):
        written = write_report(runs, out_file, gallery_users=users, data=data)
    if json:
        print_json({"report": str(written), "bytes": written.stat().st_size})
    else:
        out.print(f"written to {written} ({written.stat().st_size / 1e6:.1f} MB)", markup=False)


def _plain(text: str) -> str:
    """Titles may hold square brackets, which rich would read as markup."""
    return text.replace("[", r"\[")
