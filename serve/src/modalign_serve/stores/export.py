"""Feedback as a Parquet file, for the next training: `modalign data append`.

The library for Parquet would take more memory in the serving process than a small artifact, so the
service starts another process that writes the file.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from modalign_serve.errors import ConfigError, InputError, not_installed, unavailable
from modalign_serve.stores.stores import COLUMNS, StoreFailed, open_store

PATIENCE = 600.0
_NO_PARQUET = not_installed("pyarrow", "to write Parquet", "parquet")


def to_parquet(address: str, out: Path, since: int = 0) -> int:
    """Write all events of a store in the order of their arrival; returns their number.

    Args:
        address: of the store, see `modalign_serve.stores.stores.open_store`.
        out: file to write; it is written to a temporary file first, then renamed.
        since: only events received at this Unix time or later.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: the store cannot be used.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError(*_NO_PARQUET) from error
    texts = [(name, pa.string()) for name in COLUMNS[:4]]
    schema = pa.schema([*texts, ("time", pa.int64()), ("received", pa.int64())])
    store = open_store(address, create=False)
    aside = out.with_name(f".{out.name}.part")
    count = 0
    try:
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for chunk in store.rows(since):
                columns = [list(column) for column in zip(*chunk, strict=True)]
                writer.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True)), schema))
                count += len(chunk)
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
        store.close()
    return count


async def in_process(address: str, since: int) -> tuple[Path, Callable[[], None]]:
    """Write the file in another process; returns its path, and a function that removes it.

    Raises:
        Failure: 503 if the other process fails, or pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        _, got, fix = _NO_PARQUET
        raise unavailable(got=f"{got}: pyarrow", fix=f"ask the operator to {fix}")
    folder = Path(tempfile.mkdtemp(prefix="modalign-"))
    out = folder / "feedback.parquet"

    def done() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    # The address may hold a password: it is sent through a pipe, as arguments are public.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "modalign_serve.stores.export", str(out), str(since),
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            _, said = await process.communicate(address.encode())
    except BaseException:
        if process.returncode is None:
            process.kill()
        done()
        raise
    if process.returncode != 0:
        done()
        lines = said.decode("utf-8", "replace").strip().splitlines()
        cause = StoreFailed(lines[-1] if lines else "the export ended without a message")
        raise unavailable("an export that failed; the log has the cause", "try again") from cause
    return out, done


if __name__ == "__main__":
    try:
        to_parquet(sys.stdin.read(), Path(sys.argv[1]), int(sys.argv[2]))
    except (InputError, StoreFailed, OSError) as error:
        sys.exit(str(error))
