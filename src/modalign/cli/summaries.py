"""Data sets, training results and comparisons as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from modalign.cli.render import metric_table, out, plain, print_json, say, table

SHOWN_COLUMNS = 12
"""Columns that are named; a table may have hundreds."""
SHOWN_REMARKS = 8
LISTED = 3
"""Up to this number, runs are compared pair by pair; of more, the best one with each other."""
TESTED = 2
"""Number of metrics whose tests are printed."""
SHORTEST = 12
"""Minimum number of characters of a run's name that is shown."""


def describe(dataset: Any) -> dict[str, Any]:
    """The content of `data info`, for JSON."""
    from modalign.data.dataset import SPLITS

    known = {name: len(dataset.part(name)) for name in SPLITS if len(dataset.part(name))}
    total = sum(known.values())
    return {
        "name": dataset.name,
        "synthetic": bool(dataset.info.get("synthetic", False)),
        "fingerprint": dataset.fingerprint,
        "n_users": dataset.n_users,
        "n_items": dataset.n_items,
        "interactions": known,
        "density": total / max(dataset.n_users * dataset.n_items, 1),
        "modalities": {
            name: {
                "entity": m.entity,
                "kind": m.kind,
                "width": m.dim,
                "missing": int((~m.present).sum()),
                "present": float(m.present.mean()) if len(m) else 0.0,
                "fingerprint": m.fingerprint,
                "provenance": dict(m.provenance),
            }
            for name, m in sorted(dataset.modalities.items())
        },
        "columns": dataset.item_table.columns,
        "info": dict(dataset.info),
    }


def show_dataset(dataset: Any, json: bool) -> None:
    """Print a summary of a data set."""
    found = describe(dataset)
    if json:
        print_json(found)
        return
    users, items = found["n_users"], found["n_items"]
    total = sum(found["interactions"].values())
    rows: list[list[Any]] = [
        ["users", f"{users:,}", f"{total / max(users, 1):.1f} items each"],
        ["items", f"{items:,}", f"{total / max(items, 1):.1f} users each"],
        ["interactions", f"{total:,}", f"{found['density']:.3%} of all pairs"],
    ]
    rows += [
        [f"  {part}", f"{n:,}", f"{n / total:.1%}"] for part, n in found["interactions"].items()
    ]
    title = found["name"] + (" (synthetic)" if found["synthetic"] else "")
    out.print(table(title, ["", "", ""], rows, (1,)))
    _show_columns(found["info"])
    _show_filters(found["info"].get("filters") or [])
    _show_modalities(found["modalities"])
    if texts := found["info"].get("text_columns"):
        say(f"text of an item: {', '.join(texts)} (choose with `data import --text-columns`)", out)
    split = found["info"].get("split") or {}
    if split:
        seed = "" if split.get("seed") is None else f", seed {split['seed']}"
        say(f"split: {split.get('kind')}{seed}", out)
    if found["info"].get("licence"):
        say(f"licence: {found['info']['licence']}", out)
    say(f"fingerprint: {found['fingerprint']}", out)
    remarks = found["info"].get("remarks") or []
    for remark in remarks[:SHOWN_REMARKS]:
        say(f"note: {remark}", out)
    if len(remarks) > SHOWN_REMARKS:
        say(f"note: and {len(remarks) - SHOWN_REMARKS} more, see --json", out)


def _show_columns(info: Mapping[str, Any]) -> None:
    """Which column of the table became what, and which were left out."""
    used = info.get("columns")
    if not isinstance(used, Mapping):
        return
    say("columns: " + ", ".join(f"{role} = {name}" for role, name in used.items()), out)
    if others := info.get("not_used"):
        shown = ", ".join(others[:SHOWN_COLUMNS])
        more = f" and {len(others) - SHOWN_COLUMNS} more" if len(others) > SHOWN_COLUMNS else ""
        say(f"not used: {shown}{more}", out)


def _show_filters(steps: list[dict[str, Any]]) -> None:
    counts = ("interactions", "users", "items")
    rows = [[step["step"], *(f"{step[one]:,}" for one in counts)] for step in steps]
    if len(rows) > 1:
        out.print(table("Remaining after each filter", ["", *counts], rows, (1, 2, 3)))


def _show_modalities(modalities: Mapping[str, Mapping[str, Any]]) -> None:
    if not modalities:
        say("modalities: none yet (create them with `modalign encode`)", out)
        return
    rows = []
    for name, m in modalities.items():
        kind = m["kind"] + (" of users" if m["entity"] == "user" else "")
        share = f"{m['present']:.1%}"
        if m["missing"] and share == "100.0%":
            share = "<100%"
        rows.append([plain(name), kind, source_of(m["provenance"]), f"{m['width']:,}", share])
        rows[-1].append(f"{m['missing']:,}")
    columns = ["name", "kind", "from", "width", "present", "missing"]
    out.print(table("Modalities", columns, rows, (3, 4, 5)))


def source_of(provenance: Mapping[str, Any]) -> str:
    """The encoder, or the file, that a modality came from."""
    if "encoder" in provenance:
        return str(provenance["encoder"])
    return Path(str(provenance["file"])).name if "file" in provenance else "given"


def show_training(results: Mapping[str, Any]) -> None:
    """Print the results of a training run."""
    r = results
    where = f"{r['dataset']}{' (synthetic)' if r['synthetic'] else ''}"
    trained = (
        f"{r['epochs']} epochs in {r['seconds']:.1f} s, best epoch {r['best_epoch']}"
        if r["epochs"]
        else f"solved in {r['seconds']:.1f} s"
    )
    out.print(
        f"\n[bold]{r['model']}[/] on {plain(where)}, seed {r['seed']}: "
        f"{r['parameters']:,} parameters, {trained}",
        highlight=False,
    )
    if r.get("chosen"):
        chosen = ", ".join(f"{name} = {value:g}" for name, value in r["chosen"].items())
        say(f"chosen on validation: {chosen}", out)
    if r["valid"]:
        shown = [name for name in ("recall@20", "ndcg@20") if name in r["valid"]]
        shown = shown or list(r["valid"])[:2]
        say("validation: " + ", ".join(f"{name} {r['valid'][name]:.4f}" for name in shown), out)
    if r["test"]:
        out.print(metric_table(f"Test, all items ranked, mask {r['mask']}", r["test"]))


def show_signs(fitted: Any) -> None:
    """Print the vital signs of a `FittedModel` at its best epoch, if it has any."""
    rows = [
        [
            one.title,
            f"{one.value:.3g}",
            f"{one.sign.at_least:g}",
            "[green]above[/]" if one.alive else "[bold yellow]below[/]",
        ]
        for one in fitted.vital_signs
    ]
    if rows:
        title = f"Is the mechanism alive? {fitted.spec.name} at epoch "
        title += str(fitted.results["best_epoch"])
        out.print(table(title, ["sign", "value", "bound", ""], rows, (1, 2)))


def show_demo(fitted: Mapping[str, Any], cost: Any) -> None:
    """Print quality and cost of the runs that were timed."""
    by_name = {Path(one.run).as_posix(): one for one in cost.runs}
    columns = ["run", "recall", "ndcg", "anew", "tables", "MiB", "parameters", "and features"]
    rows = []
    for name, model in fitted.items():
        one = next((c for run, c in by_name.items() if run.endswith(f"/{name}")), None)
        if one is None:
            continue
        test = model.results["test"]
        rows.append(
            [
                plain(name),
                f"{test['recall@20']:.4f}",
                f"{test['ndcg@20']:.4f}",
                f"{one.anew_one.p50:.1f} ms",
                f"{one.tables_one.p50:.2f} ms",
                "" if one.anew_mib is None else f"{one.anew_mib:.1f}",
                f"{one.parameters.trainable / 1e6:.2f}M",
                f"{one.parameters.with_features / 1e6:.2f}M",
            ]
        )
    title = "Recall@20 and NDCG@20, and the cost of one user's list"
    out.print(table(title, columns, rows, numbers=range(1, 8)))
    say("anew: the whole forward pass for one list; tables: computed before, as in a service", out)


def show_comparison(found: Any, metrics: Sequence[str] | None = None) -> None:
    """Print a comparison, one row for each run, and the tests.

    Args:
        found: the comparison.
        metrics: the columns; the first one sorts the runs. None takes recall and NDCG at every
            cut-off, sorted by the recall of the longest list.
    """
    shown = dict(zip(found.runs, labels_of(found.runs), strict=True))
    columns = list(metrics or _main_metrics(found))
    cells = found.rows(columns)
    room = max(SHORTEST, out.width - 24)
    rows = [
        [plain(_shortened(shown[name], room)), *(_marked(cell) for cell in values)]
        for name, *values in cells
    ]
    title = f"{found.split.capitalize()}, all items ranked, mask {found.mask}, "
    _in_blocks(f"{title}{found.n_users:,} users", ["run", *columns], rows)
    tested = [metric for metric in columns if metric in found.winner]
    won = any(found.winner[metric] for metric in tested)
    if won:
        say("* significantly better than every other run", out)
    elif tested:
        say("no run is significantly better than every other run", out)
    if any(cell.endswith("=") for row in cells for cell in row[1:]):
        say("= shares the top: the best run, or not significantly different from it", out)
    if found.deviations:
        say("± is the standard deviation over seeds", out)
    for remark in found.remarks:
        say(f"note: {remark}", out)
    say("", out)
    for metric in tested[:TESTED]:
        _show_tests(found, metric, shown)
    say(f"* below {found.level:g}; --json has all metrics, and all tests with intervals", out)


def _main_metrics(found: Any) -> list[str]:
    known = list(next(iter(found.metrics.values())))
    main = [key for key in known if key.split("@")[0] in ("recall", "ndcg")]
    # The longest list first: it sorts the runs.
    return sorted(main, key=lambda key: -int(key.split("@")[1])) or known


def _marked(cell: str) -> str:
    return f"[bold green]{cell}[/]" if cell.endswith("*") else cell


def _shortened(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _show_tests(found: Any, metric: str, shown: Mapping[str, str]) -> None:
    """The tests of all pairs of few runs, or of the best run with every other one."""
    pairs = [pair for pair in found.pairs if pair.metric == metric]
    title = f"{metric}: paired t-tests over users"
    if len(found.runs) > LISTED:
        best = found.ordered(metric)[0]
        pairs = [pair for pair in pairs if best in (pair.first, pair.second)]
        title += ", the best run with each other one"
    columns = ["higher", "lower", "difference", "95% interval", "p (Holm)", "p seeds"]
    tests = [_test(pair, shown) for pair in pairs]
    if not any(test[-1] for test in tests):
        columns, tests = columns[:-1], [test[:-1] for test in tests]
    out.print(table(title, columns, tests, range(2, len(columns)), cut=(0, 1)))


def labels_of(names: Sequence[str]) -> list[str]:
    """Names of runs without their common parent folders.

    Example:
        >>> labels_of(["runs/cm3", "runs/tarec/student"])
        ['cm3', 'tarec/student']
    """
    parts = [Path(name).parts for name in names]
    shared = 0
    while all(len(one) > shared + 1 and one[shared] == parts[0][shared] for one in parts):
        shared += 1
    return ["/".join(one[shared:]) for one in parts]


def _in_blocks(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of numbers, split into several if the terminal is too narrow."""
    lengths = [Text.from_markup(cell).cell_len for row in rows for cell in row[1:]]
    first = max(Text.from_markup(row[0]).cell_len for row in rows)
    wide = max([*lengths, *(len(name) for name in columns[1:])])
    room = max(1, (out.width - first - 2) // (wide + 3))
    for begin in range(1, len(columns), room):
        part = [0, *range(begin, min(begin + room, len(columns)))]
        chosen = [[row[place] for place in part] for row in rows]
        heads = [columns[place] for place in part]
        heading = title if begin == 1 else f"{title} (continued)"
        out.print(table(heading, heads, chosen, range(1, len(part))))


def _test(pair: Any, shown: Mapping[str, str]) -> list[str]:
    """A row of the table of tests, in the order that makes the difference positive."""
    names, ends = (pair.first, pair.second), (pair.low, pair.high)
    if pair.difference < 0:
        names, ends = names[::-1], (-pair.high, -pair.low)
    p, between = f"{pair.corrected:.2g}", pair.corrected_between_seeds
    return [
        plain(shown[names[0]]),
        plain(shown[names[1]]),
        f"{abs(pair.difference):.4f}",
        f"{ends[0]:+.4f} {ends[1]:+.4f}",
        f"[bold green]{p} *[/]" if pair.significant else f"{p}  ",
        "" if between is None else f"{between:.2g}",
    ]
