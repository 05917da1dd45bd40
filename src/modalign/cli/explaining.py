"""`modalign explain`: the interests of users, from a model that explains them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.options import Data, Json
from modalign.cli.render import out as console
from modalign.cli.render import plain, print_json, say, table

SHADES = " ░▒▓█"
EPILOG = """**Examples**

    modalign explain runs/bandvae --user 42

    modalign explain runs/bandvae --user 42 --user 7 --out explain.html
"""


def explain(
    run: Annotated[
        Path, typer.Argument(help="Run folder of a model that explains (bandvae, macridvae).")
    ],
    user: Annotated[list[str], typer.Option(help="User id; repeat the option for several users.")],
    items: Annotated[int, typer.Option(min=1, help="Best items shown per rating factor.")] = 3,
    words: Annotated[int, typer.Option(min=1, help="Best words shown per content factor.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="Also write an HTML page with the items' pictures.")
    ] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Show the interests of users: rating factors with their items, content factors with their
    words, and their alignment.

    The entropy of a plan is in bits. At the logarithm (base 2) of the number of factors, every
    interest is aligned with every other.
    """
    from modalign.experiments.fit import load_model
    from modalign.report.explanations import explain_users, without_rows, write_page

    fitted = load_model(run, data)
    document = explain_users(fitted, user, items, words)
    if out is not None:
        write_page(document, fitted.dataset, out)
    if json:
        print_json(without_rows(document))
        return
    for person in document["users"]:
        _show(fitted.spec.name, person)
    rows = [
        [one["modality"], f"{one['entropy_bits']:.4f}", f"{one['word_overlap']:.4f}"]
        for one in document["average"]["modalities"]
    ]
    if rows:
        title = f"Averages over {document['average']['users']} users"
        columns = ["modality", "plan entropy, bits", "shared words"]
        console.print(table(title, columns, rows, numbers=(1, 2)))
    if out is not None:
        say(f"Written to {out}.", console)


def _show(model: str, person: dict[str, Any]) -> None:
    rows = []
    for number, factor in enumerate(person["factors"], 1):
        gates = ", ".join(f"{name} {gate:.2f}" for name, gate in factor["gates"].items())
        for place, item in enumerate(factor["items"]):
            mark = "[bold green]*[/] " if item["liked"] else "  "
            rows.append(
                [
                    "" if place else str(number),
                    mark + plain(item["title"]),
                    f"{item['score']:.2f}",
                    "" if place else gates,
                ]
            )
    title = f"{model}: interests of user {person['user']}"
    columns = ["factor", "best items", "score", "weight of content"]
    if not person["content"]:
        columns, rows = columns[:3], [row[:3] for row in rows]
    console.print(table(title, columns, rows, numbers=(2,), cut=(1,)))
    if any(item["liked"] for factor in person["factors"] for item in factor["items"]):
        say("* an item of the user's history", console)
    for content in person["content"]:
        _show_content(content)


def _show_content(content: dict[str, Any]) -> None:
    name = content["modality"]
    rows = [
        [
            str(number),
            plain(", ".join(_named(word) for word in factor["words"])),
            "" if factor["gate"] is None else f"{factor['gate']:.2f}",
        ]
        for number, factor in enumerate(content["factors"], 1)
    ]
    console.print(table(f"{name}: best words", ["factor", "words", "weight of ratings"], rows,
                        numbers=(2,)))  # fmt: skip
    top = max(max(row) for row in content["plan"])
    cells = [
        [f"rating {k}", *(f"{SHADES[min(4, int(cell / top * 5))]} {cell:.3f}" for cell in row)]
        for k, row in enumerate(content["plan"], 1)
    ]
    columns = ["", *(f"{name} {j}" for j in range(1, len(content["factors"]) + 1))]
    title = (
        f"Alignment: entropy {content['entropy_bits']:.3f} bits, "
        f"{100 * content['word_overlap']:.0f}% shared words"
    )
    console.print(table(title, columns, cells, numbers=range(1, len(columns))))


def _named(word: dict[str, Any]) -> str:
    """A word, or for a column of a codebook its most typical item."""
    return f"like {word['example']['title']}" if "example" in word else str(word["word"])
