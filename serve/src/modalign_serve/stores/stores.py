"""Where feedback is stored: SQLite in a file, or PostgreSQL by its address.

Both have the same two tables. `events` holds one row per event id, in the order of arrival;
`items` holds items that were added after the artifact was made. `write` returns when the rows are
on disk: SQLite syncs its write-ahead log at every commit, and PostgreSQL has `synchronous_commit`
switched on, whatever the server's default is.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from modalign_serve.errors import ConfigError, DataError, ModalignError, not_installed

if TYPE_CHECKING:
    import psycopg

COLUMNS = ("event_id", "user_id", "item_id", "kind", "time", "received")
CHUNK = 10_000
"""Rows read at a time."""
PATIENCE = 5.0
"""Maximum seconds for one write: to wait for a locked SQLite file, or for PostgreSQL's answer."""
_IDS = 500
"""Event ids compared by one query."""
_DSN = re.compile(r"(?:^|\s)(?:host|hostaddr|port|dbname|user|password|service)\s*=")
_SECRET = re.compile(
    r"((?:password|passfile|sslkey|sslpassword)\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]*)", re.I
)


class StoredEvent(NamedTuple):
    """One event as it is stored; times are whole seconds since 1970 (Unix time)."""

    event_id: str
    user_id: str
    item_id: str
    kind: str
    time: int
    received: int


class StoreFailed(ModalignError):
    """The store could not write or read; nothing of that write was stored.

    Args:
        message: the cause, for the log of the service and not for its callers.
        unusable: the store itself fails, so another write at once would fail as well.
    """

    def __init__(self, message: str, unusable: bool = False) -> None:
        super().__init__(message)
        self.unusable = unusable


class Conflict(NamedTuple):
    """A batch that was not stored: another event already has the id of one of its events."""

    event_id: str


Written: TypeAlias = int | Conflict
"""How many events of a batch were new, or why nothing of it was stored."""


class Store(Protocol):
    """What the service needs of a store. One thread calls `write` and `put_item`."""

    def write(self, batches: Sequence[Sequence[StoredEvent]]) -> list[Written]:
        """Store batches of events in one durable commit; returns how many of each were new.

        The same event may come again. A batch with an event whose id belongs to another event
        (of another user, item or kind) is left out as a whole.

        Raises:
            StoreFailed: nothing of them is stored.
        """

    def put_item(self, item_id: str, body: bytes) -> None:
        """Store (or replace) a new item, durably.

        Raises:
            StoreFailed: it is not stored.
        """

    def items(self) -> list[tuple[str, bytes]]:
        """All new items, in the order of their arrival."""

    def rows(self, since: int = 0) -> Iterator[list[StoredEvent]]:
        """All events received at `since` or later, in order, in chunks."""

    def histories(self) -> Iterator[tuple[str, str, str]]:
        """(user_id, item_id, kind) of all events, by user and then in order."""

    def close(self) -> None:
        """Close the connections."""


def open_store(address: str, create: bool = True) -> Store:
    """The store of an address: `postgresql://...`, `host=... dbname=...`, `sqlite:///PATH`, a path.

    Args:
        address: of the store.
        create: make a file that does not exist; otherwise it is refused.

    Raises:
        ConfigError: an address of another kind, or a driver that is not installed.
        DataError: the file or the server cannot be used.
    """
    kind, mark, rest = address.partition("://")
    if not mark:
        if _DSN.search(address):
            return PostgresStore(address)
        return SqliteStore(Path(address), create)
    if kind == "sqlite":
        path = Path(rest.removeprefix("/") if rest[1:2] != "/" else rest[1:])
        return SqliteStore(path, create)
    if kind in ("postgresql", "postgres"):
        return PostgresStore(address)
    expected = "a path, sqlite:///PATH or postgresql://USER@HOST/DATABASE"
    raise ConfigError(expected, f"{kind}://...", "give one of those with --feedback")


def redacted(address: str) -> str:
    """The address of a store without its passwords, for logs.

    Example:
        >>> redacted("postgresql://shop:s3cret@db/feedback?password=s3cret&port=1")
        'postgresql://...@db/feedback?password=...&port=1'
        >>> redacted("host=db user=shop password='s3 cret' dbname=feedback")
        'host=db user=shop password=... dbname=feedback'
        >>> redacted("feedback.sqlite")
        'feedback.sqlite'
    """
    kind, mark, rest = address.partition("://")
    if mark:
        _, at, place = rest.rpartition("@")
        address = f"{kind}://{'...@' if at else ''}{place}"
    return _SECRET.sub(r"\1...", address)


def _conflict(batch: Sequence[StoredEvent], stored: Iterator[Sequence[str]]) -> Conflict | None:
    """The first event of a batch whose id is stored for another event.

    Args:
        batch: events.
        stored: (event_id, user_id, item_id, kind) of stored events with these ids.
    """
    known = {row[0]: tuple(row[1:]) for row in stored}
    for one in batch:
        if known.get(one.event_id) != (one.user_id, one.item_id, one.kind):
            return Conflict(one.event_id)
    return None


_SQLITE = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    time INTEGER NOT NULL,
    received INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS items (
    seq INTEGER PRIMARY KEY,
    item_id TEXT NOT NULL UNIQUE,
    body BLOB NOT NULL
);
"""
_SQLITE_INSERT = (
    "INSERT INTO events (event_id, user_id, item_id, kind, time, received) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"
)


class SqliteStore:
    """Events in one file, with its write-ahead log beside it.

    Args:
        path: the file.
        create: make the file, with its folder, if it does not exist.

    Raises:
        DataError: the file is not a feedback store, cannot be written, or does not exist.

    Example:
        >>> import tempfile
        >>> store = SqliteStore(Path(tempfile.mkdtemp()) / "feedback.sqlite")
        >>> row = StoredEvent("e1", "42", "i7", "click", 1_700_000_000, 1_700_000_001)
        >>> store.write([[row, row], [row]]), list(store.histories())
        ([1, 0], [('42', 'i7', 'click')])
        >>> store.close()
    """

    def __init__(self, path: Path, create: bool = True) -> None:
        self.path = path
        if not create and not path.is_file():
            raise DataError(
                "an existing file of feedback", f"{path}, which does not exist",
                "give the path that the server got with --feedback",
            )  # fmt: skip
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._connect()
            self._db.executescript(_SQLITE)
        except (sqlite3.Error, OSError) as error:
            got = f"{path}: {error}"
            fix = "check the path and its permissions, or choose another with --feedback"
            raise DataError("a file for feedback, new or written by modalign", got, fix) from error

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            db.close()
            raise sqlite3.OperationalError(f"journal mode {mode} where wal is needed")
        # FULL syncs the log at every commit; the default of WAL, NORMAL, only at checkpoints.
        db.execute("PRAGMA synchronous=FULL")
        return db

    def write(self, batches: Sequence[Sequence[StoredEvent]]) -> list[Written]:
        """See `Store.write`."""
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                new = [self._insert(batch) for batch in batches]
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _sqlite_failed(error) from error
        return new

    def _insert(self, batch: Sequence[StoredEvent]) -> Written:
        db = self._db
        db.execute("SAVEPOINT batch")
        count = max(db.executemany(_SQLITE_INSERT, batch).rowcount, 0)
        if count < len(batch):
            conflict = _conflict(batch, self._same_ids(batch))
            if conflict is not None:
                db.execute("ROLLBACK TO batch")
                db.execute("RELEASE batch")
                return conflict
        db.execute("RELEASE batch")
        return count

    def _same_ids(self, batch: Sequence[StoredEvent]) -> Iterator[Sequence[str]]:
        for start in range(0, len(batch), _IDS):
            ids = [one.event_id for one in batch[start : start + _IDS]]
            marks = ", ".join("?" * len(ids))
            yield from self._db.execute(
                f"SELECT event_id, user_id, item_id, kind FROM events WHERE event_id IN ({marks})",
                ids,
            )

    def put_item(self, item_id: str, body: bytes) -> None:
        """See `Store.put_item`."""
        try:
            self._db.execute(
                "INSERT INTO items (item_id, body) VALUES (?, ?) "
                "ON CONFLICT (item_id) DO UPDATE SET body = excluded.body",
                (item_id, body),
            )
        except sqlite3.Error as error:
            raise _sqlite_failed(error) from error

    def items(self) -> list[tuple[str, bytes]]:
        """See `Store.items`."""
        return [tuple(row) for row in self._read("SELECT item_id, body FROM items ORDER BY seq")]

    def rows(self, since: int = 0) -> Iterator[list[StoredEvent]]:
        """See `Store.rows`."""
        query = f"SELECT {', '.join(COLUMNS)} FROM events WHERE received >= ? ORDER BY seq"
        chunk: list[StoredEvent] = []
        for row in self._read(query, (since,)):
            chunk.append(StoredEvent(*row))
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def histories(self) -> Iterator[tuple[str, str, str]]:
        """See `Store.histories`."""
        yield from self._read("SELECT user_id, item_id, kind FROM events ORDER BY user_id, seq")

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[Any]:
        # A connection of its own: with WAL, readers and the writer do not wait for each other.
        try:
            with contextlib.closing(self._connect()) as db:
                yield from db.execute(query, values)
        except sqlite3.Error as error:
            raise _sqlite_failed(error) from error

    def close(self) -> None:
        """See `Store.close`."""
        self._db.close()


def _sqlite_failed(error: sqlite3.Error) -> StoreFailed:
    # An operational error (locked, full, gone) is of the file; others are of what was written.
    return StoreFailed(f"SQLite: {error}", isinstance(error, sqlite3.OperationalError))


_POSTGRES = """
SELECT pg_advisory_xact_lock(727064210);
CREATE TABLE IF NOT EXISTS modalign_events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    time BIGINT NOT NULL,
    received BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS modalign_items (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id TEXT NOT NULL UNIQUE,
    body BYTEA NOT NULL
);
"""
_POSTGRES_INSERT = (
    "INSERT INTO modalign_events (event_id, user_id, item_id, kind, time, received) "
    "SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], "
    "%s::bigint[]) ON CONFLICT (event_id) DO NOTHING"
)
_POSTGRES_SAME_IDS = (
    "SELECT event_id, user_id, item_id, kind FROM modalign_events WHERE event_id = ANY(%s)"
)


class PostgresStore:
    """Events in two tables of a PostgreSQL database.

    A broken connection is replaced once before a write fails; to write the same events again is
    safe, as their ids are unique.

    Args:
        address: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.

    Raises:
        ConfigError: the driver psycopg is not installed.
        DataError: the server refuses, or cannot be reached.
    """

    def __init__(self, address: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ConfigError(
                *not_installed("psycopg", "to keep feedback in PostgreSQL", "postgresql")
            ) from error
        self._errors = psycopg.Error
        self._broken = (psycopg.OperationalError, psycopg.InterfaceError)
        self._address = address
        self._lock = threading.Lock()
        try:
            self._db = self._connect()
            with self._db.transaction():
                self._db.execute(_POSTGRES)
        except psycopg.Error as error:
            got = str(error).strip().split("\n")[0]
            fix = "check the address given with --feedback, and the user's rights"
            raise DataError("a PostgreSQL database that can be written", got, fix) from error

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg

        db = psycopg.connect(self._address, autocommit=True, connect_timeout=5)
        db.execute("SET synchronous_commit = on")
        return db

    def write(self, batches: Sequence[Sequence[StoredEvent]]) -> list[Written]:
        """See `Store.write`."""

        def insert(db: psycopg.Connection[Any]) -> list[Written]:
            with db.transaction():
                return [_inserted(db, batch) if batch else 0 for batch in batches]

        return self._twice(insert)  # type: ignore[no-any-return]

    def put_item(self, item_id: str, body: bytes) -> None:
        """See `Store.put_item`."""
        self._twice(
            lambda db: db.execute(
                "INSERT INTO modalign_items (item_id, body) VALUES (%s, %s) "
                "ON CONFLICT (item_id) DO UPDATE SET body = excluded.body",
                (item_id, body),
            )
        )

    def _twice(self, act: Any) -> Any:
        try:
            with self._lock:
                try:
                    with _cut_after(self._db, PATIENCE):
                        return act(self._db)
                except self._broken:
                    self._db.close()
                    self._db = self._connect()
                    with _cut_after(self._db, PATIENCE):
                        return act(self._db)
        except self._errors as error:
            unusable = isinstance(error, self._broken)
            raise StoreFailed(f"PostgreSQL: {str(error).strip()}", unusable) from error

    def items(self) -> list[tuple[str, bytes]]:
        """See `Store.items`."""
        query = "SELECT item_id, body FROM modalign_items ORDER BY seq"
        return [(name, bytes(body)) for chunk in self._read(query) for name, body in chunk]

    def rows(self, since: int = 0) -> Iterator[list[StoredEvent]]:
        """See `Store.rows`."""
        query = (
            f"SELECT {', '.join(COLUMNS)} FROM modalign_events WHERE received >= %s ORDER BY seq"
        )
        for chunk in self._read(query, (since,)):
            yield [StoredEvent(*row) for row in chunk]

    def histories(self) -> Iterator[tuple[str, str, str]]:
        """See `Store.histories`."""
        query = "SELECT user_id, item_id, kind FROM modalign_events ORDER BY user_id, seq"
        for chunk in self._read(query):
            yield from chunk

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[list[Any]]:
        # A server-side cursor: a long table is never in memory as a whole.
        try:
            with (
                contextlib.closing(self._connect()) as db,
                db.transaction(),
                db.cursor("modalign_rows") as cursor,
            ):
                cursor.execute(query, values)
                while chunk := cursor.fetchmany(CHUNK):
                    yield chunk
        except self._errors as error:
            raise StoreFailed(f"PostgreSQL: {str(error).strip()}") from error

    def close(self) -> None:
        """See `Store.close`."""
        self._db.close()


def _inserted(db: psycopg.Connection[Any], batch: Sequence[StoredEvent]) -> Written:
    """Insert a batch inside a transaction, unless it is in conflict with what is stored."""
    import psycopg

    found: Written = 0
    with db.transaction() as inside:
        found = db.execute(_POSTGRES_INSERT, [list(c) for c in zip(*batch, strict=True)]).rowcount
        if found < len(batch):
            ids = [one.event_id for one in batch]
            conflict = _conflict(batch, iter(db.execute(_POSTGRES_SAME_IDS, (ids,))))
            if conflict is not None:
                found = conflict
                raise psycopg.Rollback(inside)
    return found


@contextlib.contextmanager
def _cut_after(db: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Shut the connection down after some seconds: a frozen server never answers, and no setting
    of the server or of the network ends such a wait.
    """
    if db.closed:
        yield
        return
    # A descriptor of its own: that of the connection may be closed and used again meanwhile.
    own = socket.socket(fileno=os.dup(db.fileno()))

    def cut() -> None:
        with contextlib.suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        own.close()
