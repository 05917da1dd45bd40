"""`modalign describe`: what each user likes, in words and as a modality."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from modalign.cli.options import Device, Json, Sets, choose, own_options
from modalign.cli.render import counting, err, out, plain, print_json, say, table
from modalign.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from modalign.data.dataset import Dataset
    from modalign.preferences.asking import LanguageModelProvider
    from modalign.preferences.base import LanguageModel
    from modalign.preferences.cost import Estimate
    from modalign.preferences.describe import DescribeReport
    from modalign.preferences.side import TrainingSide

NAME = "preference"
PROVIDERS = ("template", "history-mean", "random", "openai", "local", "file")
SHOWN_ITEMS, SHOWN_FAILURES = 6, 5
EPILOG = """**Providers** (`--provider`)

- `template`: a user's most telling words and categories, offline; the default
- `history-mean`: the mean of their items' features, no words; wants an encoded modality
- `random`: numbers that say nothing, for comparison
- `openai`: any server of chat completions, with `--base-url`, `--model` and a key from the
  environment
- `local`: a causal language model in a folder, with `--model FOLDER`
- `file`: your own texts or vectors by user id, with `--set path=FILE`

Only training interactions reach a profile. Answers are kept in DATA/profiles/answers.sqlite as
they come: after a kill or a failure the same command asks for the rest only.

**Examples**

    modalign describe data/ml

    modalign describe data/ml --show 5

    modalign describe data/ml --provider openai --base-url http://localhost:8000/v1
      --model qwq-32b --key-variable none --dry-run

    modalign describe data/ml --provider openai --base-url https://api.openai.com/v1
      --model gpt-4o-mini --price-in 0.15 --price-out 0.60 --requests-per-minute 500
"""


def register(root: typer.Typer) -> None:
    """Add the command to the top level."""
    root.command(epilog=EPILOG, rich_help_panel="Data")(describe)


def describe(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    provider: Annotated[
        str, typer.Option(help="template, history-mean, random, openai, local or file, see below.")
    ] = "template",
    name: Annotated[str, typer.Option(help="Name of the users' modality.")] = NAME,
    embedder: Annotated[
        str, typer.Option(help="Text encoder of the texts: tfidf, minilm, st:NAME, hf:NAME.")
    ] = "tfidf",
    column: Annotated[
        list[str] | None, typer.Option(help="Item column that makes the text; repeat it.")
    ] = None,
    show: Annotated[
        int | None, typer.Option(min=1, help="Show so many users' texts and items; write nothing.")
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option(help="Show this user; repeat it; write nothing.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="openai: address, ends in /v1.")] = None,
    model: Annotated[
        str | None, typer.Option(help="openai: name of the model; local: its folder.")
    ] = None,
    key_variable: Annotated[
        str, typer.Option(help="openai: environment variable with the key; none where none is.")
    ] = "OPENAI_API_KEY",
    max_tokens: Annotated[
        int, typer.Option(min=1, help="openai, local: of an answer; more to think aloud.")
    ] = 160,
    max_items: Annotated[int, typer.Option(min=1, help="openai, local: items in a prompt.")] = 30,
    concurrency: Annotated[int, typer.Option(min=1, help="openai: questions at a time.")] = 4,
    timeout: Annotated[float, typer.Option(min=0.001, help="openai: seconds of silence.")] = 60.0,
    retries: Annotated[int, typer.Option(min=0, help="openai: how often to try again.")] = 6,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="openai: limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="openai: limit.")] = None,
    price_in: Annotated[
        float | None, typer.Option(min=0, help="Price of a million tokens of prompts.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option(min=0, help="Price of a million tokens of answers.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the estimate and a prompt; ask nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it costs.")] = False,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="The template answers what failed.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="local: prompts in one pass.")] = 4,
    device: Device = "auto",
    seed: Annotated[
        int, typer.Option(min=0, help="Of the choice among a user's items, and of random.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Describe again what is there.")] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Say what each user likes, from training items alone.

    The result is a modality of the users, which models such as recgoat read, and beside it the
    texts, which people read with --show.
    """
    from modalign.core import devices
    from modalign.data.dataset import Dataset
    from modalign.preferences.asking import LanguageModelProvider
    from modalign.preferences.describe import describe as run
    from modalign.preferences.embed import EncoderEmbedder
    from modalign.preferences.side import training_side

    choose("provider", provider, PROVIDERS)
    dataset = Dataset.load(folder)
    if show is not None or user:
        _show(dataset, name, show or 0, user or [], json)
        return
    asked = _Asked(
        provider=provider,
        sets=own_options(sets, (), "the provider"),
        device=str(devices.resolve(device)),
        seed=seed,
        base_url=base_url,
        model=model,
        key_variable=None if key_variable.lower() == "none" else key_variable,
        max_tokens=max_tokens,
        max_items=max_items,
        concurrency=concurrency,
        timeout=timeout,
        retries=retries,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        batch_size=batch_size,
    )
    made = _provider(dataset, asked)
    if isinstance(made, LanguageModelProvider):
        side = training_side(dataset, column, seed)
        told = made.estimate(
            side,
            price_in=price_in,
            price_out=price_out,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        if dry_run:
            _show_plan(made, side, told, json)
            return
        if told.questions and provider == "openai":
            _show_estimate(told)
            _agree(yes)
    elif dry_run:
        raise ConfigError(
            "--dry-run with a provider that asks a language model (openai, local)",
            f"provider {provider}",
            "leave --dry-run out",
        )
    with counting("describing", name) as progress:
        dataset, report = run(
            dataset,
            made,
            embedder=EncoderEmbedder(embedder, asked.device),
            name=name,
            columns=column,
            fallback=fallback,
            force=force,
            seed=seed,
            progress=progress,
        )
    if json:
        print_json(report.to_dict())
        return
    _show_report(report)
    if report.sources:
        say(f"next: modalign describe {folder}{f' --name {name}' * (name != NAME)} --show 5")


@dataclass(frozen=True)
class _Asked:
    """What the command line says of a provider."""

    provider: str
    sets: dict[str, Any]
    device: str
    seed: int
    base_url: str | None
    model: str | None
    key_variable: str | None
    max_tokens: int
    max_items: int
    concurrency: int
    timeout: float
    retries: int
    requests_per_minute: int | None
    tokens_per_minute: int | None
    batch_size: int

    def own(self, *names: str) -> dict[str, Any]:
        """The `--set` options, which must be among `names`."""
        for key in self.sets:
            if key not in names:
                raise UnknownName(f"option of provider {self.provider}", key, names or ("(none)",))
        return self.sets

    def need(self, value: Any, option: str, what: str) -> str:
        """`value`, where it is given.

        Raises:
            ConfigError: it is not.
        """
        if not value:
            raise ConfigError(
                f"{option} for provider {self.provider}: {what}", "none", f"add {option}"
            )
        return str(value)


def _provider(dataset: Dataset, asked: _Asked) -> Any:
    """The provider with the options that are its own."""
    if asked.provider in ("openai", "local"):
        from modalign.preferences.asking import LanguageModelProvider
        from modalign.preferences.describe import answers_path

        model = _endpoint(asked) if asked.provider == "openai" else _local(asked)
        return LanguageModelProvider(model, answers_path(dataset), asked.max_items)
    if asked.provider == "file":
        from modalign.preferences.given import from_file

        options = {key: str(value) for key, value in asked.own("path", "ids").items()}
        path = asked.need(options.get("path"), "--set path=FILE", "texts or vectors by user id")
        return from_file(path, options.get("ids"))
    if asked.provider == "template":
        from modalign.preferences.template import Template

        return Template(**asked.sets)
    from modalign.preferences.vectors import HistoryMean, Random

    if asked.provider == "history-mean":
        return HistoryMean(**{key: str(one) for key, one in asked.own("modality").items()})
    return Random(**{"seed": asked.seed, **asked.sets})


def _endpoint(asked: _Asked) -> LanguageModel:
    from modalign.preferences.endpoint import OpenAICompatible

    return OpenAICompatible(
        asked.need(asked.base_url, "--base-url", "an address such as https://api.openai.com/v1"),
        asked.need(asked.model, "--model", "the name of a model there"),
        key_variable=asked.key_variable,
        max_tokens=asked.max_tokens,
        timeout=asked.timeout,
        retries=asked.retries,
        concurrency=asked.concurrency,
        requests_per_minute=asked.requests_per_minute,
        tokens_per_minute=asked.tokens_per_minute,
        extra=asked.sets,
    )


def _local(asked: _Asked) -> LanguageModel:
    from modalign.preferences.local import LocalTransformers

    asked.own()
    folder = asked.need(asked.model, "--model", "the folder of a causal language model")
    return LocalTransformers(folder, asked.device, asked.batch_size, asked.max_tokens)


def _agree(yes: bool) -> None:
    """Ask before anything is asked of a server.

    Raises:
        ConfigError: nobody is there to answer.
        Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            "an answer whether to go on, at a terminal", "no terminal", "add --yes, or --dry-run"
        )
    typer.confirm("Go on?", abort=True, err=True)


def _estimate_rows(told: Estimate) -> list[list[str]]:
    rows = [
        ["questions to ask", f"{told.questions:,}"],
        ["answers there already", f"{told.known:,}"],
        ["tokens of prompts, about", f"{told.tokens_in:,}"],
        ["tokens of answers, at most", f"{told.tokens_out:,}"],
    ]
    if told.price is None:
        price = "no price given"
    else:
        price = f"{told.price:,.2f}" if not 0 < told.price < 0.01 else "under 0.01"
    rows.append(["price, at most about", price])
    if told.minutes is not None:
        rows.append(["minutes by the limits, at least", f"{told.minutes:,.1f}"])
    return rows


def _show_estimate(told: Estimate) -> None:
    err.print(table("Before it starts", ["", ""], _estimate_rows(told), (1,)))


def _show_plan(made: LanguageModelProvider, side: TrainingSide, told: Estimate, json: bool) -> None:
    """The estimate and one prompt."""
    users, questions = made.questions(side)
    prompt = questions[0] if questions else ""
    if json:
        print_json({**told.to_dict(), "prompt": prompt})
        return
    out.print(table("What it would ask", ["", ""], _estimate_rows(told), (1,)))
    if questions:
        say(f"The prompt about user {side.users.ids([users[0]])[0]}:\n", out)
        say(prompt, out)


def _show_report(report: DescribeReport) -> None:
    note = "was there already" if report.skipped else f"{report.seconds:.1f} s"
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
        say(f"  user {user_id}: {reason}; the template answers", err)
    if len(report.failures) > SHOWN_FAILURES:
        say(f"  and {len(report.failures) - SHOWN_FAILURES} more, see --json", err)


def _show(dataset: Dataset, name: str, n: int, user_ids: list[str], json: bool) -> None:
    """Texts of some users beside their training items."""
    from modalign.preferences.describe import texts_of
    from modalign.preferences.side import training_side

    texts = texts_of(dataset, name)
    side = training_side(dataset)
    told = texts["text"].is_not_null().arg_true().to_list()[:n]
    rows = side.users.rows(user_ids).tolist() + told
    users, items = side.latest()
    found = []
    for row in dict.fromkeys(rows):
        text, source = texts.row(row)[1:]
        titles = [side.titles[item] for item in items[users == row]]
        found.append(
            {
                "user": side.users.ids([row])[0],
                "text": text,
                "source": source,
                "items": titles,
            }
        )
    if json:
        print_json(found)
        return
    for one in found:
        _show_user(one)


def _show_user(one: dict[str, Any]) -> None:
    """One user: the text, where it is from, and the first of the items."""
    titles = one["items"]
    more = len(titles) - SHOWN_ITEMS
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("text", Text(one["text"] or "none"))
    grid.add_row("from", Text(one["source"] or "nothing: no training items, or nothing to say"))
    listed = "\n".join(titles[:SHOWN_ITEMS]) or "none in training"
    grid.add_row("items", Text(listed + (f"\nand {more:,} more" if more > 0 else "")))
    out.print(Text(f"user {one['user']}", "bold"), grid, Text(""), sep="\n")
