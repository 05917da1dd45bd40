"""The commands of the server, registered by `modalign-serve` and by `modalign`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from modalign_serve.command.grouped import grouped
from modalign_serve.command.terminal import Json, out, print_json, say, table
from modalign_serve.errors import ConfigError

if TYPE_CHECKING:
    from modalign_serve.command.bench import LoadResult

ENCODER = (sys.executable, "-m", "modalign.encoding.standing")
"""The encoder of new items that comes with modalign."""


class Names(NamedTuple):
    """What a program calls itself and the commands below.

    Attributes:
        program: such as "modalign-serve".
        serve, bench, key, feedback: names of its commands.
    """

    program: str
    serve: str
    bench: str
    key: str
    feedback: str


def register(app: typer.Typer, names: Names, panel: str | None = None) -> None:
    """Add the commands to an app.

    Args:
        app: of the program.
        names: of the program and its commands, also used in their examples.
        panel: heading in the program's help, where it has several.
    """

    def add(name: str, function: Callable[..., None], *examples: str) -> None:
        shown = "".join(f"\n\n    {names.program} {name} {one}" for one in examples)
        app.command(name, rich_help_panel=panel, epilog=f"**Examples**{shown}")(function)

    add(
        names.serve,
        serve,
        "artifacts/shop --port 8080",
        "a=artifacts/shop b=artifacts/shop-2 --split a=0.9 --split b=0.1",
    )
    add(names.bench, bench, "artifacts/shop --users 10000 --seconds 20")
    add(names.key, key, "shop --keys keys.jsonl", "operator --keys keys.jsonl --admin")
    add(names.feedback, feedback, "feedback.sqlite --out feedback.parquet")


@dataclass(frozen=True)
class Listening:
    """Where the server listens, and whom it answers."""

    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 accepts other machines, with --keys.")
    ] = "127.0.0.1"
    port_file: Annotated[
        Path | None, typer.Option(help="File to write the port to once the server listens.")
    ] = None
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys; without it any caller is accepted.")
    ] = None
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Origin of another site whose pages may call; may be repeated."),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name that callers may address the server by; may be repeated."),
    ] = None
    allow_open: Annotated[
        bool,
        typer.Option("--allow-open", help="Let other machines call a server without keys."),
    ] = False


@dataclass(frozen=True)
class Limits:
    """Bounds on requests and on the process."""

    rate: Annotated[
        float, typer.Option(help="Requests per second for each key or address; 0: no limit.")
    ] = 0.0
    max_body: Annotated[int, typer.Option(help="Maximum size of a request body in bytes.")] = (
        2_000_000
    )
    timeout: Annotated[
        float, typer.Option(help="Maximum seconds for a request to arrive completely.")
    ] = 10.0
    drain: Annotated[
        float, typer.Option(help="Seconds to keep accepting requests after SIGTERM.")
    ] = 0.0
    threads: Annotated[int, typer.Option(min=1, help="Threads of a matrix product.")] = 1


@grouped
def serve(
    artifacts: Annotated[
        list[str], typer.Argument(help="Folders written by `modalign export`, or NAME=FOLDER.")
    ],
    listening: Listening,
    limits: Limits,
    feedback: Annotated[
        str,
        typer.Option(help="Feedback store: a path (SQLite) or postgresql://USER@HOST/DATABASE."),
    ] = "feedback.sqlite",
    split: Annotated[
        list[str] | None,
        typer.Option(help="Share of the traffic of /v1/recommend as NAME=SHARE; may be repeated."),
    ] = None,
    log: Annotated[str, typer.Option(help="Log level: debug, info, warning or error.")] = "info",
    encoder: Annotated[
        bool,
        typer.Option(
            "--encoder", help="Encode texts and pictures of new items in another process."
        ),
    ] = False,
    page: Annotated[bool, typer.Option(help="Serve the web page at /.")] = True,
) -> None:
    """Serve artifacts over HTTP; the API is documented at /docs, a web page is at /.

    Feedback is stored before it is acknowledged. SIGTERM answers the requests in flight and ends
    the server; SIGHUP reads the keys and artifacts again.
    """
    # Before numpy is imported, which reads these variables once.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(limits.threads))
    from modalign_serve.command import server
    from modalign_serve.service.service import Service
    from modalign_serve.service.service_settings import ServiceSettings

    if encoder and find_spec("modalign") is None:
        got = "no such package"
        fix = 'pip install "modalign[encoders]", or leave out --encoder and send features'
        raise ConfigError("the package modalign, whose encoders --encoder runs", got, fix)
    settings = ServiceSettings(
        artifacts=_named(artifacts),
        feedback=feedback,
        host=listening.host,
        port=listening.port,
        keys=listening.keys,
        split=_shares(split or []),
        rate=limits.rate,
        max_body=limits.max_body,
        cors=tuple(listening.cors or ()),
        hosts=tuple(listening.allow_host or ()),
        allow_open=listening.allow_open,
        timeout=limits.timeout,
        drain=limits.drain,
        log=log,
        encoder=ENCODER if encoder else None,
        page=page,
    )
    # The port first: a server that cannot listen should not read a gigabyte to find out.
    with server.bind(settings.host, settings.port) as sock:
        service = Service(settings)
        port = sock.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        names = ", ".join(settings.artifacts)
        pages = "the page at /, the API documented at /docs" if page else "API documented at /docs"

        def listening_now() -> None:
            with contextlib.suppress(OSError):  # a full disk or a closed pipe stops no service
                say(f"serving {names} at http://{host}:{port} ({pages})")
            if listening.port_file is not None:
                # Renamed at the end, so the file is complete when it exists.
                aside = listening.port_file.with_name(f".{listening.port_file.name}.part")
                aside.write_text(f"{port}\n")
                aside.replace(listening.port_file)

        server.run(service, sock, listening_now)


def bench(
    artifact: Annotated[Path, typer.Argument(help="Folder written by `modalign export`.")],
    users: Annotated[int, typer.Option(min=1, help="Number of users to ask for.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of the load.")] = 20.0,
    connections: Annotated[int, typer.Option(min=1, help="Requests in flight at a time.")] = 8,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Number of items in a list.")] = 20,
    json: Json = False,
) -> None:
    """Start a server of an artifact, load it from another process, and measure it."""
    from modalign_serve.command.bench import measure

    found = measure(artifact, users, seconds, connections, k)
    if json:
        print_json(asdict(found))
    else:
        _show(found)


def key(
    name: Annotated[str, typer.Argument(help="Name of the holder, for logs and limits.")],
    keys: Annotated[Path, typer.Option("--keys", help="File of API keys.")],
    admin: Annotated[
        bool, typer.Option("--admin", help="Allow swapping artifacts and exporting feedback.")
    ] = False,
    json: Json = False,
) -> None:
    """Create an API key: print it once, and add its hash to the file."""
    from modalign_serve.service.keys import new_key

    role = "admin" if admin else "use"
    word = new_key(keys, name, role)
    if json:
        print_json({"name": name, "role": role, "key": word})
        return
    out.print(word, markup=False, highlight=False, soft_wrap=True)
    say("The key will not be shown again. Send it as `Authorization: Bearer KEY`.")


def feedback(
    store: Annotated[str, typer.Argument(help="The store given to the server with --feedback.")],
    out_file: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    since: Annotated[
        int, typer.Option(min=0, help="Only events received at this Unix time or later.")
    ] = 0,
    json: Json = False,
) -> None:
    """Write feedback to a Parquet file, for `modalign data append`; the server may keep running."""
    from modalign_serve.stores.export import to_parquet

    count = to_parquet(store, out_file, since)
    if json:
        print_json({"events": count, "file": str(out_file)})
    else:
        say(f"{count:,} events written to {out_file}", out)


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


def _show(found: LoadResult) -> None:
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
