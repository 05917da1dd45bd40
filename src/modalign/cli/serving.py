"""`modalign serve` and what belongs to it; nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modalign.cli.options import Json
from modalign.cli.render import out, print_json, say, table
from modalign.errors import ConfigError

if TYPE_CHECKING:
    from modalign_serve.command.bench import Measured

PANEL = "Service"
Feedback = Annotated[
    str,
    typer.Option(help="Where feedback goes: a path (SQLite) or postgresql://USER@HOST/DATABASE."),
]
KeysFile = Annotated[Path, typer.Option("--keys", help="File of API keys.")]
SERVE = """**Examples**

    modalign serve artifacts/shop --port 8080

    modalign serve a=artifacts/shop b=artifacts/shop-2 --split a=0.9 --split b=0.1

    curl -s localhost:8080/v1/models/shop/recommend -d '{"user_id": "42", "k": 10}'
"""
BENCH = "**Example**\n\n    modalign bench-serve artifacts/shop --users 10000 --seconds 20"
KEY = "**Example**\n\n    modalign serve-key shop --keys keys.jsonl"
EXPORT = """**Example**

    modalign serve-feedback feedback.sqlite --out feedback.parquet
"""


def register(root: typer.Typer) -> None:
    """Add the commands to the top level."""
    root.command(rich_help_panel=PANEL, epilog=SERVE)(serve)
    root.command("bench-serve", rich_help_panel=PANEL, epilog=BENCH)(bench_serve)
    root.command("serve-key", rich_help_panel=PANEL, epilog=KEY)(serve_key)
    root.command("serve-feedback", rich_help_panel=PANEL, epilog=EXPORT)(serve_feedback)


def serve(
    artifacts: Annotated[
        list[str], typer.Argument(help="Folders written by `modalign export`, or NAME=FOLDER.")
    ],
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="0.0.0.0 for other machines.")] = "127.0.0.1",
    feedback: Feedback = "feedback.sqlite",
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys; without one everybody may ask.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Share of the traffic of /v1/recommend as NAME=SHARE; repeat it."),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Requests a second for each key or address; 0 for no limit.")
    ] = 0.0,
    max_body: Annotated[int, typer.Option(help="Largest body in bytes.")] = 2_000_000,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Origin of another site whose pages may call; repeat it."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for a request to arrive.")] = 10.0,
    drain: Annotated[
        float, typer.Option(help="Seconds between SIGTERM and the last accepted request.")
    ] = 0.0,
    log: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    threads: Annotated[int, typer.Option(min=1, help="Threads of a matrix product.")] = 1,
    encoder: Annotated[
        bool,
        typer.Option("--encoder", help="Encode new items' texts and pictures, in a process apart."),
    ] = False,
    page: Annotated[bool, typer.Option(help="Show the page for people at /.")] = True,
) -> None:
    """Serve artifacts over HTTP, with feedback that is never lost; the API is told at /docs, and a
    page for people is at /.

    SIGTERM answers what is in flight and ends; SIGHUP reads keys and artifacts again.
    """
    _limit_threads(threads)
    from modalign_serve.command import server
    from modalign_serve.service import encoding
    from modalign_serve.service.service import Service
    from modalign_serve.service.settings import Settings

    settings = Settings(
        artifacts=_named(artifacts),
        feedback=feedback,
        host=host,
        port=port,
        keys=keys,
        split=_shares(split or []),
        rate=rate,
        max_body=max_body,
        cors=tuple(cors or ()),
        timeout=timeout,
        drain=drain,
        log=log,
        encoder=encoding.OWN if encoder else None,
        page=page,
    )
    # The port first: a service that cannot listen should not read a gigabyte to find out.
    with server.bind(host, port) as sock:
        service = Service(settings)
        shown = f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"
        names = ", ".join(settings.artifacts)
        told = f"the page is at {shown}/, the API" if page else "the API"
        say(f"serving {names} at {shown} ({told} is told at {shown}/docs)")
        server.run(service, sock)


def bench_serve(
    artifact: Annotated[Path, typer.Argument(help="Folder written by `modalign export`.")],
    users: Annotated[int, typer.Option(min=1, help="Different users to ask for.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to ask.")] = 20.0,
    connections: Annotated[int, typer.Option(min=1, help="Requests under way at a time.")] = 8,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Items in a list.")] = 20,
    json: Json = False,
) -> None:
    """Load a service of this artifact from another process on loopback, and measure it."""
    from modalign_serve.command import bench

    found = bench.measure(artifact, users, seconds, connections, k)
    if json:
        print_json(found.to_dict())
        return
    _show(found)


def serve_key(
    name: Annotated[str, typer.Argument(help="Who holds it; for logs and limits.")],
    keys: KeysFile,
    admin: Annotated[
        bool, typer.Option("--admin", help="May swap artifacts and export feedback.")
    ] = False,
    json: Json = False,
) -> None:
    """Make an API key: it is shown once, and its hash is added to the file."""
    from modalign_serve.service.keys import new_key

    role = "admin" if admin else "use"
    word = new_key(keys, name, role)
    if json:
        print_json({"name": name, "role": role, "key": word})
        return
    out.print(word, markup=False, highlight=False, soft_wrap=True)
    say("that was its only showing; send it as `Authorization: Bearer KEY`")


def serve_feedback(
    store: Annotated[str, typer.Argument(help="What was given to `modalign serve --feedback`.")],
    out_file: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    since: Annotated[
        int, typer.Option(min=0, help="Only events received since this second of 1970.")
    ] = 0,
    json: Json = False,
) -> None:
    """Write feedback as Parquet, for `modalign data append`; a service may run meanwhile."""
    from modalign_serve.stores.export import to_parquet

    count = to_parquet(store, out_file, since)
    if json:
        print_json({"events": count, "file": str(out_file)})
    else:
        say(f"{count:,} events written to {out_file}", out)


def _limit_threads(threads: int) -> None:
    """Tell the libraries of linear algebra before numpy is imported; afterwards it is too late."""
    import os

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


def _named(artifacts: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for one in artifacts:
        name, equals, folder = one.partition("=")
        path = Path(folder if equals else one)
        name = name if equals else path.resolve().name
        if name in found:
            raise ConfigError(
                "a name for each artifact", f"{name!r} twice", "name them: A=FOLDER B=FOLDER"
            )
        found[name] = path
    return found


def _shares(split: list[str]) -> dict[str, float]:
    found = {}
    for one in split:
        name, _, share = one.partition("=")
        try:
            found[name] = float(share)
        except ValueError as error:
            raise ConfigError("a share as NAME=0.9", repr(one), "change --split") from error
    return found


def _show(found: Measured) -> None:
    columns = ["requests/s", "p50 ms", "p99 ms", "slowest ms", "MB", "failed"]
    row = [
        f"{found.per_second:,.0f}",
        f"{found.p50_ms:.2f}",
        f"{found.p99_ms:.2f}",
        f"{found.slowest_ms:.2f}",
        f"{found.memory_mb:,.0f}",
        f"{found.failed:,}",
    ]
    title = (
        f"{found.users:,} users, {found.n_items:,} items, k {found.k}, "
        f"{found.connections} connections, {found.seconds:.1f} seconds"
    )
    out.print(table(title, columns, [row], numbers=range(6)))
