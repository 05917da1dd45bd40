"""`modalign describe`: what each user likes, in words and as a modality."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from modalign.cli.options import Device, Json, Sets, own_options
from modalign.cli.render import counting, err, out, plain, print_json, printable, say, table
from modalign.errors import ConfigError
from modalign_serve.command.grouped import grouped

if TYPE_CHECKING:
    from modalign.data.dataset import Dataset
    from modalign.preferences.describe import DescribeReport
    from modalign.preferences.language_model import LanguageModelProvider
    from modalign.preferences.pricing import Estimate
    from modalign.preferences.side import TrainingSide

NAME = "preference"
SHOWN_ITEMS, SHOWN_FAILURES = 6, 5
EPILOG = """**Providers** (`--provider`)

- `template`: a user's most characteristic words and categories, offline; the default
- `history-mean`: the mean of the features of their items, no words; needs an encoded modality
- `random`: random vectors, for comparison
- `openai`: any chat completions server, with `--base-url`, `--model` and a key from the
  environment
- `local`: a causal language model in a folder, with `--model FOLDER`
- `file`: your own texts or vectors by user id, with `--set path=FILE`

Providers see training interactions only. Answers are stored in DATA/preferences/answers.sqlite as
they arrive: after an interruption or a failure, the same command asks only the remaining questions.

**Examples**

    modalign describe data/ml

    modalign describe data/ml --show 5

    modalign describe data/ml --provider openai --base-url http://localhost:8000/v1
      --model qwq-32b --key-variable none --dry-run

    modalign describe data/ml --provider openai --base-url https://api.openai.com/v1
      --model gpt-4o-mini --price-in 0.15 --price-out 0.60 --requests-per-minute 500
"""
MODEL, REQUESTS, COST = "Language model (openai, local)", "Requests (openai)", "Cost"


@dataclass(frozen=True)
class DescribeRequest:
    """What is described, and how."""

    provider: Annotated[
        str, typer.Option(help="template, history-mean, random, openai, local or file, see below.")
    ] = "template"
    name: Annotated[str, typer.Option(help="Name of the users' modality.")] = NAME
    embedder: Annotated[
        str, typer.Option(help="Text encoder of the texts: tfidf, minilm, st:NAME, hf:NAME.")
    ] = "tfidf"
    column: Annotated[
        list[str] | None, typer.Option(help="Item column that makes the text; repeat for more.")
    ] = None
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Use the template for questions that failed.")
    ] = False
    force: Annotated[
        bool, typer.Option("--force", help="Describe again even if the modality exists.")
    ] = False
    seed: Annotated[
        int,
        typer.Option(min=0, help="Seed for sampling a user's items and for the random provider."),
    ] = 1


@dataclass(frozen=True)
class Preview:
    """What is shown, without writing anything."""

    show: Annotated[
        int | None,
        typer.Option(min=1, help="Show the texts and items of this many users; write nothing."),
    ] = None
    user: Annotated[
        list[str] | None, typer.Option(help="Show this user; repeat for more; write nothing.")
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the estimate and one prompt; ask nothing.")
    ] = False


def _option(panel: str, default: str, text: str, least: float | None = None) -> Any:
    """An option whose default is the provider's own, shown as `default`."""
    return typer.Option(help=text, show_default=default or False, rich_help_panel=panel, min=least)


@dataclass(frozen=True)
class ModelOptions:
    """The language model, of which only the options given are passed on."""

    base_url: Annotated[
        str | None, _option(MODEL, "", "openai: address of the server, ends in /v1.")
    ] = None
    model: Annotated[
        str | None, _option(MODEL, "", "openai: name of the model; local: its folder.")
    ] = None
    key_variable: Annotated[
        str | None,
        _option(
            MODEL,
            "OPENAI_API_KEY",
            "openai: environment variable that holds the key; none for a server without keys.",
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        _option(MODEL, "160", "Maximum answer length in tokens; raise it for reasoning models.", 1),
    ] = None
    max_items: Annotated[
        int | None, _option(MODEL, "30", "Maximum number of items in a prompt.", 1)
    ] = None
    batch_size: Annotated[
        int | None, _option(MODEL, "4", "local: prompts in one pass of the network.", 1)
    ] = None
    concurrency: Annotated[
        int | None, _option(REQUESTS, "4", "Maximum number of requests at a time.", 1)
    ] = None
    timeout: Annotated[
        float | None, _option(REQUESTS, "60", "Seconds without a byte from the server.", 0.001)
    ] = None
    retries: Annotated[
        int | None, _option(REQUESTS, "6", "How often a failed request is repeated.", 0)
    ] = None
    requests_per_minute: Annotated[
        int | None, _option(REQUESTS, "", "Maximum number of requests per minute.", 1)
    ] = None
    tokens_per_minute: Annotated[
        int | None, _option(REQUESTS, "", "Maximum number of tokens per minute.", 1)
    ] = None


@dataclass(frozen=True)
class Cost:
    """What asking may cost."""

    price_in: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a million tokens of prompts.", rich_help_panel=COST),
    ] = None
    price_out: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a million tokens of answers.", rich_help_panel=COST),
    ] = None
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Skip the cost confirmation.", rich_help_panel=COST)
    ] = False


@grouped
def describe(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    request: DescribeRequest,
    preview: Preview,
    model: ModelOptions,
    cost: Cost,
    device: Device = "auto",
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Describe what each user likes, from training items only.

    The result is a modality of the users, which models such as recgoat read, and the texts,
    which --show prints.
    """
    from modalign.core import devices
    from modalign.data.dataset import Dataset
    from modalign.preferences.describe import answers_path
    from modalign.preferences.describe import describe as run
    from modalign.preferences.embed import EncoderEmbedder
    from modalign.preferences.language_model import LanguageModelProvider
    from modalign.preferences.provider import ProviderContext, make_provider
    from modalign.preferences.side import training_side

    dataset = Dataset.load(folder)
    if preview.show is not None or preview.user:
        _show(dataset, request.name, preview.show or 0, preview.user or [], json)
        return
    given = {key: value for key, value in vars(model).items() if value is not None}
    own = own_options(sets, (), "the provider")
    # The server of `openai` has options of its own, which are fields of its requests.
    options = given | ({"extra": own} if request.provider == "openai" else own)
    where = str(devices.resolve(device))
    context = ProviderContext(answers_path(dataset), where, request.seed)
    made = make_provider(request.provider, context, **options)
    if isinstance(made, LanguageModelProvider):
        side = training_side(dataset, request.column, request.seed)
        estimate = made.estimate(
            side,
            price_in=cost.price_in,
            price_out=cost.price_out,
            requests_per_minute=model.requests_per_minute,
            tokens_per_minute=model.tokens_per_minute,
        )
        if preview.dry_run:
            _show_plan(made, side, estimate, json)
            return
        if estimate.questions and request.provider == "openai":
            rows = _estimate_rows(estimate)
            err.print(table("Before it starts", ["", ""], rows, (1,)))
            _agree(cost.yes)
    elif preview.dry_run:
        expected = "--dry-run with a provider that asks a language model (openai, local)"
        raise ConfigError(expected, f"provider {request.provider}", "leave --dry-run out")
    with counting("describing", request.name) as progress:
        dataset, report = run(
            dataset,
            made,
            embedder=EncoderEmbedder(request.embedder, where),
            name=request.name,
            columns=request.column,
            fallback=request.fallback,
            force=request.force,
            seed=request.seed,
            progress=progress,
        )
    if json:
        print_json(report.to_dict())
        return
    _show_report(report)
    if report.sources:
        name = f" --name {request.name}" * (request.name != NAME)
        say(f"next: modalign describe {folder}{name} --show 5")


def _agree(yes: bool) -> None:
    """Ask for confirmation before anything is asked of a server."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("a confirmation at a terminal", "no terminal", "add --yes, or --dry-run")
    typer.confirm("Continue?", abort=True, err=True)


def _estimate_rows(estimate: Estimate) -> list[list[str]]:
    if estimate.price is None:
        price = "no prices given"
    else:
        price = f"{estimate.price:,.2f}" if not 0 < estimate.price < 0.01 else "under 0.01"
    rows = [
        ["questions to ask", f"{estimate.questions:,}"],
        ["stored answers", f"{estimate.known:,}"],
        ["tokens of prompts, estimated", f"{estimate.tokens_in:,}"],
        ["tokens of answers, maximum", f"{estimate.tokens_out:,}"],
        ["price, estimated maximum", price],
    ]
    if estimate.minutes is not None:
        rows.append(["minutes under the rate limits, minimum", f"{estimate.minutes:,.1f}"])
    return rows


def _show_plan(
    made: LanguageModelProvider, side: TrainingSide, estimate: Estimate, json: bool
) -> None:
    """The estimate and one prompt."""
    users, questions = made.questions(side)
    prompt = questions[0] if questions else ""
    if json:
        print_json({**estimate.to_dict(), "prompt": prompt})
        return
    out.print(table("What it would ask", ["", ""], _estimate_rows(estimate), (1,)))
    if questions:
        say(f"The prompt about user {side.users.ids([users[0]])[0]}:\n", out)
        say(prompt, out)


def _show_report(report: DescribeReport) -> None:
    note = "exists already" if report.skipped else f"{report.seconds:.1f} s"
    texts = ", ".join(f"{count:,} {source}" for source, count in sorted(report.sources.items()))
    rows = [
        [
            plain(report.modality),
            f"{report.n_present:,} of {report.n_users:,}",
            f"{report.dim:,}",
            texts or "none",
            note,
        ]
    ]
    out.print(table("Users", ["name", "described", "width", "texts", "time"], rows, (1, 2)))
    for user_id, reason in report.failures[:SHOWN_FAILURES]:
        say(f"  user {user_id}: {reason}; the template is used", err)
    if len(report.failures) > SHOWN_FAILURES:
        say(f"  and {len(report.failures) - SHOWN_FAILURES} more, see --json", err)


def _show(dataset: Dataset, name: str, n: int, user_ids: list[str], json: bool) -> None:
    """Texts of some users next to their training items."""
    from modalign.preferences.describe import texts_of
    from modalign.preferences.side import training_side

    texts = texts_of(dataset, name)
    side = training_side(dataset)
    described = texts["text"].is_not_null().arg_true().to_list()[:n]
    rows = side.users.rows(user_ids).tolist() + described
    users, items = side.latest()
    found = []
    for row in dict.fromkeys(rows):
        text, source = texts.row(row)[1:]
        titles = [side.titles[item] for item in items[users == row]]
        found.append(
            {"user": side.users.ids([row])[0], "text": text, "source": source, "items": titles}
        )
    if json:
        print_json(found)
        return
    for one in found:
        _show_user(one)


def _show_user(one: dict[str, Any]) -> None:
    """One user: the text, its source, and the first items."""
    titles = one["items"]
    more = len(titles) - SHOWN_ITEMS
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("text", _shown(one["text"] or "none"))
    grid.add_row("source", _shown(one["source"] or "none: no training items or no words"))
    listed = "\n".join(map(printable, titles[:SHOWN_ITEMS])) or "none in training"
    grid.add_row("items", Text(listed + (f"\nand {more:,} more" if more > 0 else "")))
    out.print(Text(printable(f"user {one['user']}"), "bold"), grid, Text(""), sep="\n")


def _shown(text: str) -> Text:
    return Text(printable(text, keep="\n"))
