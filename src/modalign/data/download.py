"""Fetching official data sets: resumed where it stopped, verified, unpacked safely.

raw/
  ml-100k.zip             the archive as published
  ml-100k/                its content
  amazon-2023-Baby_Products/*.jsonl.gz
  downloads.lock.json     SHA-256 and size of every file fetched here
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modalign.core.files import write_aside, write_folder_aside
from modalign.data.official import RECORDS, RemoteFile, record
from modalign.errors import ConfigError, DataError

__all__ = ["RECORDS", "Download", "checksum", "get", "unpack"]

LOCK = "downloads.lock.json"
BLOCK = 1 << 18
TRIES = 3
TIMEOUT = 60.0

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Download:
    """What was fetched.

    Attributes:
        name: the data set's name.
        folder: where its files are, ready for `modalign data import SOURCE FOLDER`.
        source: the kind of source that reads it.
        files: the downloaded files, archives included.
        licence: its terms, to be shown.
        citation: the publication to cite.
        remarks: what the user ought to know, such as how far the files could be verified.
    """

    name: str
    folder: Path
    source: str
    files: tuple[Path, ...]
    licence: str
    citation: str
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: paths as text."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "source": self.source,
            "files": [str(path) for path in self.files],
            "licence": self.licence,
            "citation": self.citation,
            "remarks": list(self.remarks),
        }


def get(
    name: str, out: str | Path, base_url: str | None = None, progress: Progress | None = None
) -> Download:
    """Fetch an official data set by its name into `out`.

    A file is fetched into `<file>.part`; where that was interrupted, now or in an earlier
    call, it goes on from there. It takes its name only after its checksum was right. Files
    that are there already and right are not fetched again.

    Args:
        name: a name of `modalign.data.official.RECORDS`.
        out: folder that gets the archive and the data set's folder `<out>/<name>`.
        base_url: a mirror that holds the files, instead of the publishers' addresses.
        progress: called with (bytes so far, bytes in all or None) of the file that is coming.

    Returns:
        Where the files are, and the terms on which they may be used.

    Raises:
        UnknownName: there is no such data set; the nearest name is suggested.
        ConfigError: `base_url` is not an http or https address.
        DataError: the address cannot be reached or has no such file, the connection broke
            repeatedly, the checksum is wrong, or the archive is broken or would write outside
            its folder. Whatever was good before is untouched.

    Limits: one connection, one file after the other. Without a publisher's checksum, a first
    download is only as good as the connection was.
    """
    entry = record(name)
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise ConfigError("an address beginning with http:// or https://", base_url, "mend it")
    out = Path(out)
    single = len(entry.files) == 1 and entry.files[0].name.endswith(".zip")
    folder = out / name
    (out if single else folder).mkdir(parents=True, exist_ok=True)
    lock = _Lock(out / LOCK)
    paths, remarks = [], []
    for file in entry.files:
        path = (out if single else folder) / file.name
        url = f"{base_url.rstrip('/')}/{file.name}" if base_url else file.url
        remarks += _fetch_verified(file, url, path, lock, progress or _silent)
        paths.append(path)
    if single:
        unpack(paths[0], folder)
    return Download(
        name, folder, entry.source, tuple(paths), entry.licence, entry.citation, tuple(remarks)
    )


def _silent(done: int, total: int | None) -> None:
    """No progress wanted."""


# ----------------------------------------------------------------------------- verification


class _Lock:
    """SHA-256 of the files fetched into a folder, kept as JSON beside them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.entries: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        except ValueError as error:
            raise DataError(
                f"a lock file of earlier downloads, {path}", str(error), "remove the file"
            ) from error

    def key(self, path: Path) -> str:
        return path.relative_to(self.path.parent).as_posix()

    def sha256(self, path: Path) -> str:
        return str(self.entries.get(self.key(path), {}).get("sha256", ""))

    def write(self, path: Path, url: str, sha256: str) -> None:
        entry = {"url": url, "sha256": sha256, "size": path.stat().st_size}
        if self.entries.get(self.key(path)) != entry:
            self.entries[self.key(path)] = entry
            with write_aside(self.path) as aside:
                aside.write_text(json.dumps(self.entries, indent=2, sort_keys=True) + "\n")


def _fetch_verified(
    file: RemoteFile, url: str, path: Path, lock: _Lock, progress: Progress
) -> list[str]:
    """Have `path` there with the right checksum; remarks on how it was verified."""
    expected, whose = _expected(file, url, path, lock)
    remark = []
    if path.is_file():
        wrong = _mismatch(path, expected)
        if wrong:
            raise DataError(
                f"{path} with {expected}, as {whose} says",
                f"{wrong}; the file was left as it is",
                "move the file away and run the command again",
            )
        progress(path.stat().st_size, path.stat().st_size)
    else:
        part = path.with_name(f"{path.name}.part")
        _fetch(url, part, _Known(file.size, bool(expected)), progress)
        if wrong := _mismatch(part, expected):
            _forget(part)
            raise DataError(
                f"{url} with {expected}, as {whose} says",
                f"{wrong}; what was fetched was thrown away",
                "run the command again; if it stays so, the publisher has changed the file",
            )
        part.replace(path)
        _forget(part)
    if not expected:
        remark.append(
            f"{path.name}: the publisher states no checksum; its SHA-256 was written to "
            f"{LOCK}, and later downloads are held to it"
        )
    lock.write(path, file.url, checksum(path, "sha256"))
    return remark


def _expected(file: RemoteFile, url: str, path: Path, lock: _Lock) -> tuple[str, str]:
    """Checksum as "algorithm:digits" or empty, and who states it."""
    if file.checksum:
        return file.checksum, "the publisher"
    known = lock.sha256(path)
    if file.checksum_url and not (known and path.is_file()):
        beside = file.checksum_url if url == file.url else f"{url}.md5"
        return f"md5:{_published_md5(beside)}", f"the publisher's {beside}"
    return (f"sha256:{known}", f"{LOCK} since the first download") if known else ("", "")


def _published_md5(url: str) -> str:
    with _open(url) as answer:
        text = answer.read(1 << 12).decode("utf-8", "replace")
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if not found:
        raise DataError(f"an MD5 checksum at {url}", repr(text[:40]), "try again later")
    return found.group().lower()


def checksum(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file, `algorithm` "md5" or "sha256"."""
    with path.open("rb") as file:
        # MD5 is what the publisher gives; it finds broken files, not forged ones.
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest()


def _mismatch(path: Path, expected: str) -> str:
    """The checksum it has instead, or nothing."""
    if not expected:
        return ""
    algorithm, _, wanted = expected.partition(":")
    found = checksum(path, algorithm)
    return "" if found == wanted else f"{algorithm}:{found}"


# ---------------------------------------------------------------------------------- network


def _open(url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """The answer of `url`; HTTP's refusals and a missing network told in three facts."""
    request = urllib.request.Request(url, headers={"User-Agent": "modalign", **(headers or {})})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            raise
        error.close()
        raise DataError(
            f"the file at {url}",
            f"HTTP {error.code} {error.reason}",
            "see whether the publisher has moved it; a mirror can be given as base_url",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"an answer from {url}",
            f"no connection ({reason})",
            "check the network, or download the file in a browser and put it into the folder",
        ) from error
    assert isinstance(answer, http.client.HTTPResponse)
    return answer


@dataclass(frozen=True)
class _Known:
    """What is known of a file before it comes: its size (or 0), and whether its checksum is."""

    size: int
    checksum: bool


def _fetch(url: str, part: Path, known: _Known, progress: Progress) -> None:
    """Fetch `url` into `part`, going on where it stopped, at most `TRIES` times in vain."""
    vain, last = 0, "the connection was closed early"
    while vain < TRIES:
        before = part.stat().st_size if part.is_file() else 0
        try:
            if _fetch_once(url, part, known, progress):
                return
        except (OSError, http.client.HTTPException) as error:
            last = str(error) or type(error).__name__
        after = part.stat().st_size if part.is_file() else 0
        vain = 0 if after > before else vain + 1
    raise DataError(
        f"the whole file {url}",
        f"{part.stat().st_size if part.is_file() else 0} bytes, then {last}, {TRIES} times",
        "run the command again later: it goes on from there",
    )


def _fetch_once(url: str, part: Path, known: _Known, progress: Progress) -> bool:
    """One request; whether the file is whole afterwards.

    Two halves are joined only where the server's mark of the file's version (ETag or date) is
    the same, or where a checksum will tell.
    """
    tag = part.with_name(f"{part.name}.tag")
    version = tag.read_text() if tag.is_file() else ""
    have = part.stat().st_size if part.is_file() and (version or known.checksum) else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and version:
        headers["If-Range"] = version
    try:
        answer = _open(url, headers)
    except urllib.error.HTTPError as error:
        # 416: there is nothing beyond what we have. Whole, or a remnant of another file.
        total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        error.close()
        if total == str(have):
            return True
        _forget(part)
        return False
    with answer:
        resumed = answer.status == 206 and _begins_at(answer, have)
        if answer.status == 206 and not resumed:
            _forget(part)
            return False
        done = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total_bytes = done + int(length) if length else None
        tag.write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                done += len(block)
                progress(done, total_bytes or known.size or None)
    return total_bytes is None or done == total_bytes


def _begins_at(answer: http.client.HTTPResponse, start: int) -> bool:
    return (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.tag").unlink(missing_ok=True)


# --------------------------------------------------------------------------------- archives


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive so that `folder` holds its content, all of it or nothing.

    A single folder around everything is left off. Where `folder` already holds all members in
    their sizes, nothing is written.

    Raises:
        DataError: the archive is broken, or a member's name leads out of the folder or is a
            link.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = {info: _safe(archive, info) for info in file.infolist() if not info.is_dir()}
            tops = {path.parts[0] for path in members.values() if len(path.parts) > 1}
            around = len(tops) == 1 and all(len(path.parts) > 1 for path in members.values())
            targets = {i: Path(*p.parts[int(around) :]) for i, p in members.items()}
            if all(_same_size(folder / path, info.file_size) for info, path in targets.items()):
                return
            with write_folder_aside(folder) as aside:
                for info, path in targets.items():
                    (aside / path).parent.mkdir(parents=True, exist_ok=True)
                    with file.open(info) as source, (aside / path).open("wb") as target:
                        shutil.copyfileobj(source, target, BLOCK)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"a whole zip archive {archive}", str(error), "remove it and fetch it again"
        ) from error


def _same_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _safe(archive: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    """The member's path, if it stays inside the folder and is a plain file."""
    path = PurePosixPath(info.filename.replace("\\", "/"))
    link = stat.S_ISLNK(info.external_attr >> 16)
    drive = bool(path.parts) and ":" in path.parts[0]
    if path.is_absolute() or ".." in path.parts or drive or link or not path.parts:
        raise DataError(
            f"members of {archive.name} that stay inside its folder",
            f"{info.filename!r}{', a link' if link else ''}; nothing was unpacked",
            "do not trust this archive; fetch it from its publisher",
        )
    return path
