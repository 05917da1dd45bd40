"""`modalign evaluate`, `compare`, `recommend`, `similar`, `report`: results of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.options import MASKS, Cutoffs, Data, Device, HowMany, Json, choose, parse_ks
from modalign.cli.render import err, metric_table, out, plain, print_json, say, table
from modalign.cli.summaries import show_comparison
from modalign.errors import ConfigError

Runs = Annotated[list[Path], typer.Argument(help="Run folders, separated by spaces.")]
Run = Annotated[Path, typer.Argument(help="Run folder.")]
SPLITS = ("valid", "test")
CANDIDATES = ("all", "cold")


def evaluate(
    run: Run,
    mask: Annotated[
        str | None, typer.Option(help="strict or train; default: the mask of the run.")
    ] = None,
    k: Cutoffs = "5,10,20,50",
    split: Annotated[str, typer.Option(help="valid or test.")] = "test",
    candidates: Annotated[
        str, typer.Option(help="all (items), or cold (only items without training interactions).")
    ] = "all",
    groups: Annotated[
        bool, typer.Option("--groups", help="Also show user activity and item popularity groups.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Prepared data to measure on, matched by id; default: the run's own."),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Evaluate a trained model again: another mask, other cut-offs, newer data, cold items.

    With `--data`, users and items are matched by id, so that a run can be measured on data that
    have grown since its training. The result is kept in the run folder, where
    `modalign compare` finds it.
    """
    from modalign.experiments import measuring

    ks = parse_ks(k)
    choose("split", split, SPLITS)
    choose("kind of candidates", candidates, CANDIDATES)
    choose("mask", mask or MASKS[0], MASKS)
    fitted, dataset = measuring.opened(run, data, device)
    found = measuring.evaluate(
        fitted,
        dataset,
        split=split,  # type: ignore[arg-type]  # the evaluator refuses what it does not know
        mask=mask,  # type: ignore[arg-type]
        ks=ks,
        candidates=candidates,  # type: ignore[arg-type]
    )
    frames: dict[str, Any] = {}
    if groups:
        from modalign.evaluate.groups import by_activity
        from modalign.report.side_by_side import popularity_groups

        frames["user activity"] = by_activity(found.per_user)
        frames["item popularity"] = popularity_groups(found, dataset, max(ks))
    if json:
        print_json(
            {
                "run": str(run),
                "model": fitted.spec.name,
                "data": dataset.fingerprint,
                "split": split,
                "mask": found.mask,
                "candidates": candidates,
                "users": found.n_users,
                "metrics": found.metrics,
                "remarks": list(found.remarks),
                **({"groups": {n: f.to_dicts() for n, f in frames.items()}} if groups else {}),
            }
        )
        return
    which = "" if candidates == "all" else ", cold items only"
    title = f"{fitted.spec.name}: {split}, mask {found.mask}, {found.n_users:,} users{which}"
    if dataset.fingerprint != fitted.dataset.fingerprint:
        title += f", on {data}"
    out.print(metric_table(title, found.metrics))
    for remark in found.remarks:
        say(f"note: {remark}", out)
    if found.n_skipped:
        say(f"{found.n_skipped:,} users without a history were left out", out)
    for name, frame in frames.items():
        _show_groups(f"By {name}", frame, max(ks))


def _show_groups(title: str, frame: Any, k: int) -> None:
    """The accuracy of each group at the longest list; --json has every metric."""
    shown = [f"{metric}@{k}" for metric in ("recall", "precision", "ndcg", "hit")]
    columns = [c for c in frame.columns if "@" not in c or c in shown]
    rows = [
        [f"{v:.4f}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v for v in row]
        for row in frame.select(columns).rows()
    ]
    out.print(table(title, columns, rows, numbers=range(1, len(columns))))


def compare(
    runs: Runs,
    k: Annotated[
        str | None,
        typer.Option("--k", help="Cut-offs to compare at; default: 10 and 20 where measured."),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(min=0.000001, max=0.5, help="Significance level of the corrected tests."),
    ] = 0.05,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A column, such as ndcg@10; repeat it for more. The first one sorts the runs."
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="strict or train; default: one under which all runs were measured."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare metrics with paired tests over users and Holm's correction.

    A winner is named only if it differs significantly from every other run. Runs of the same
    model and options with different seeds are averaged per user first. Runs on different data are
    compared on the users whose test pairs are the same; `modalign evaluate RUN --data DATA`
    measures a run on other data first, and `--mask` under another mask.
    """
    from modalign.report.side_by_side import compare_runs

    if mask is not None:
        choose("mask", mask, MASKS)
    ks = None if k is None else parse_ks(k)
    if metric and ks is None:
        ks = sorted({_cutoff(name) for name in metric})
    found = compare_runs(runs, ks, alpha, mask)
    for name in metric or ():
        found.ordered(name)
    if json:
        print_json(found.to_dict())
        return
    show_comparison(found, metric)


def _cutoff(metric: str) -> int:
    kind, _, k = metric.partition("@")
    if not kind or not k.isdecimal() or int(k) < 1:
        fix = "write the metric and the cut-off: --metric ndcg@10"
        raise ConfigError("a metric with its cut-off, such as ndcg@10", repr(metric), fix)
    return int(k)


def recommend(
    run: Run,
    user: Annotated[list[str] | None, typer.Option(help="User id; repeat it for several.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All users of the data; needs --out.")
    ] = False,
    k: HowMany = 10,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Also list items that the user already had.")
    ] = False,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Write the lists to this file, .csv or .parquet."),
    ] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Recommend items to users: ids, titles and scores, beside the items that the user liked.

    Items of the user's test part are marked: they were hidden in training. A file has the columns
    user_id, rank, item_id, score and title.
    """
    from modalign.experiments.fit import load_model

    users = list(dict.fromkeys(user or []))
    _check_users(users, every, out_file)
    fitted = load_model(run, data)
    if not users and not every:
        known = fitted.dataset.users.series
        some = ", ".join(repr(one) for one in known.head(3))
        raise ConfigError(
            f"a user with --user ID, one of {len(known):,} such as {some}",
            "none",
            f"write --user {known[0]}, or --all --out lists.csv for all users",
        )
    if out_file is not None:
        frames = (
            fitted.recommend_all(k, not keep_seen)
            if every
            else iter([fitted.recommend(users, k, filter_seen=not keep_seen)])
        )
        n = _write_lists(frames, out_file)
        if json:
            print_json({"lists": str(out_file), "rows": n})
        else:
            say(f"{n:,} rows written to {out_file}", out)
        return
    documents = _lists(fitted, users, k, keep_seen)
    if json:
        print_json(documents)
        return
    for document in documents:
        _show_list(fitted.spec.name, document, k)


FORMATS = (".csv", ".parquet")
LONGEST_ID = 16
"""Longer ids are cut on a narrow terminal, as titles are."""


def _check_users(users: list[str], every: bool, out_file: Path | None) -> None:
    if users and every:
        raise ConfigError("--user or --all", "both", "drop one of them")
    if every and out_file is None:
        fix = "add --out lists.csv or --out lists.parquet"
        raise ConfigError("a file for the lists of all users", "--all without --out", fix)
    if out_file is not None and out_file.suffix.lower() not in FORMATS:
        fix = "end the name with .csv or .parquet"
        raise ConfigError("a file that ends with .csv or .parquet", repr(out_file.name), fix)


def _write_lists(frames: Any, path: Path) -> int:
    """Write frames one after another, complete or not at all; the number of rows."""
    import pyarrow.csv
    import pyarrow.parquet

    from modalign.core.files import write_aside

    n, writer = 0, None
    with write_aside(path) as aside:
        try:
            for frame in frames:
                table = frame.to_arrow(compat_level=None).cast(_plain_schema(frame))
                if writer is None:
                    make: Any = (
                        pyarrow.csv.CSVWriter
                        if path.suffix.lower() == ".csv"
                        else pyarrow.parquet.ParquetWriter
                    )
                    writer = make(aside, table.schema)
                writer.write_table(table)
                n += len(frame)
        finally:
            if writer is not None:
                writer.close()
    return n


def _plain_schema(frame: Any) -> Any:
    """Types that every reader of Parquet knows."""
    import pyarrow as pa

    text = pa.large_string()
    kinds = {"rank": pa.int64(), "score": pa.float32()}
    return pa.schema([(name, kinds.get(name, text)) for name in frame.columns])


def _lists(fitted: Any, users: list[str], k: int, keep_seen: bool) -> list[dict[str, Any]]:
    """The recommendations of each user, with what the user liked and which were hits."""
    from modalign.report.gallery import hidden_items, liked

    frame = fitted.recommend(users, k, filter_seen=not keep_seen)
    documents = []
    for one in users:
        mine = frame.filter(frame["user_id"] == one)
        hits = hidden_items(fitted.dataset, one)
        documents.append(
            {
                "user": one,
                "liked": [
                    {key: v for key, v in had.items() if key != "item"}
                    for had in liked(fitted.dataset, one)
                ],
                "recommended": [
                    {**row, "hit": row["item_id"] in hits}
                    for row in mine.drop("user_id").to_dicts()
                ],
            }
        )
    return documents


def _show_list(model: str, document: dict[str, Any], k: int) -> None:
    got, before = document["recommended"], document["liked"]
    titled = any(one["title"] != one["item_id"] for one in got)
    rows = []
    for place in range(max(len(got), min(len(before), k))):
        cells = [""] * 5
        if place < len(got):
            one = got[place]
            mark = "[bold green]*[/] " if one["hit"] else "  "
            title = plain(one["title"]) if titled else ""
            cells[:4] = [str(one["rank"]), plain(one["item_id"]), mark + title,
                         f"{one['score']:.3f}"]  # fmt: skip
        if place < len(before):
            cells[4] = plain(before[place]["title"])
        rows.append(cells)
    title = f"{model} for user {document['user']}"
    heading = f"liked before ({len(before):,})"
    columns = ["", "item", "recommended" if titled else "", "score", heading]
    cut = [2, 4] if titled else [4]
    if max((len(one["item_id"]) for one in got), default=0) > LONGEST_ID:
        cut.insert(0, 1)
    out.print(table(title, columns, rows, numbers=(0, 3), cut=cut))
    if any(one["hit"] for one in got):
        say("* in the user's test part, which was hidden in training", out)


def similar(
    run: Run,
    item: Annotated[list[str], typer.Option(help="Item id; repeat it for several.")],
    k: HowMany = 10,
    data: Data = None,
    json: Json = False,
) -> None:
    """List the items nearest to an item in the trained space."""
    from modalign.experiments.fit import load_model

    fitted = load_model(run, data)
    frame = fitted.similar_items(item, k)
    if json:
        print_json(frame.to_dicts())
        return
    titles = dict(zip(fitted.dataset.items, fitted.dataset.titles(), strict=True))
    for one in item:
        rows = [
            [r["rank"], plain(r["title"]), f"{r['score']:.3f}", plain(r["similar_item_id"])]
            for r in frame.filter(frame["item_id"] == one).to_dicts()
        ]
        title = f"Similar to {titles[one]} (item {one})"
        out.print(table(title, ["", "title", "score", "item"], rows, numbers=(0, 2), cut=(1,)))


def report(
    runs: Runs,
    out_file: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path(
        "report.html"
    ),
    users: Annotated[int, typer.Option(min=1, help="Number of users in the gallery.")] = 6,
    data: Data = None,
    json: Json = False,
) -> None:
    """Write a self-contained page: curves, metrics, tests, groups, a gallery with pictures."""
    from modalign.report.page import write_report

    with err.status("drawing"):
        written = write_report(runs, out_file, gallery_users=users, data=data)
    if json:
        print_json({"report": str(written), "bytes": written.stat().st_size})
    else:
        say(f"written to {written} ({written.stat().st_size / 1e6:.1f} MB)", out)
