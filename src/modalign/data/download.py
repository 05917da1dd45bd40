"""Downloading official data sets: resumed where interrupted, verified, unpacked safely.

raw/
  ml-100k.zip             the archive as published
  ml-100k/                its content
  amazon-2023-Baby_Products/*.jsonl.gz
  downloads.lock.json     SHA-256 and size of every file downloaded here

pooch cannot resume a broken download (it downloads each file from the start), hence not used.
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
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modalign.core.files import write_aside, write_folder_aside
from modalign.data.official import RemoteFile, record
from modalign.errors import ConfigError, DataError

LOCK = "downloads.lock.json"
BLOCK = 1 << 18
TRIES = 3
TIMEOUT = 60.0

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Download:
    """What was downloaded.

    Attributes:
        name: name of the data set.
        folder: where its files are, ready for `modalign data import SOURCE FOLDER`.
        source: the kind of source that reads it.
        files: the downloaded files, archives included.
        licence: its terms, to be shown.
        citation: the publication to cite.
        remarks: notes to show, such as how far the files could be verified.
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
        files = [str(path) for path in self.files]
        return {**asdict(self), "folder": str(self.folder), "files": files}


def get(
    name: str, out: str | Path, base_url: str | None = None, progress: Progress | None = None
) -> Download:
    """Download an official data set by its name into `out`.

    A file is downloaded as `<file>.part`; an interrupted one, of this or an earlier call, is
    resumed. It gets its name only after its checksum was verified. Files that exist and are right
    are not downloaded again.

    Args:
        name: a name of `modalign.data.official.RECORDS`.
        out: folder for the archive and the folder of the data set, `<out>/<name>`.
        base_url: a mirror that holds the files; None uses the addresses of the publishers.
        progress: called with (bytes so far, bytes in total or None) of the current file.

    Returns:
        Where the files are, and the terms on which they may be used.

    Raises:
        UnknownName: there is no such data set; the nearest name is suggested.
        ConfigError: `base_url` is not an http or https address.
        DataError: the address cannot be reached or has no such file, the connection broke
            repeatedly, the checksum is wrong, or the archive is broken or would write outside
            its folder. Files that were right before are unchanged.

    Limits: one connection, one file after the other. If the publisher states no checksum, the
    first download is only as good as the connection was.
    """
    entry = record(name)
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise ConfigError(
            "an address beginning with http:// or https://", base_url, "correct the address"
        )
    out = Path(out)
    single = len(entry.files) == 1 and entry.files[0].name.endswith(".zip")
    folder = out / name
    target = out if single else folder
    target.mkdir(parents=True, exist_ok=True)
    lock = _Lock(out / LOCK)
    remarks = []
    for file in entry.files:
        url = f"{base_url.rstrip('/')}/{file.name}" if base_url else file.url
        told = progress or (lambda done, total: None)
        remarks += _verified(file, url, target / file.name, lock, told)
    paths = tuple(target / file.name for file in entry.files)
    if single:
        unpack(paths[0], folder)
    return Download(
        name, folder, entry.source, paths, entry.licence, entry.citation, tuple(remarks)
    )


class _Lock:
    """SHA-256 of the files downloaded into a folder, kept as JSON beside them."""

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

    def write(self, path: Path, url: str) -> None:
        size, sha256 = path.stat().st_size, checksum(path, "sha256")
        entry = {"url": url, "sha256": sha256, "size": size}
        if self.entries.get(self.key(path)) != entry:
            self.entries[self.key(path)] = entry
            with write_aside(self.path) as aside:
                aside.write_text(json.dumps(self.entries, indent=2, sort_keys=True) + "\n")


def _verified(file: RemoteFile, url: str, path: Path, lock: _Lock, progress: Progress) -> list[str]:
    """Make sure that `path` exists with the right checksum; remarks on how it was verified."""
    expected, stated_by = _expected(file, url, path, lock)
    if path.is_file():
        if wrong := _mismatch(path, expected):
            got = f"{wrong}; the file was left as it is"
            fix = "move the file away and run the command again"
            raise DataError(f"{path} with {expected}, as {stated_by} says", got, fix)
        progress(path.stat().st_size, path.stat().st_size)
    else:
        part = path.with_name(f"{path.name}.part")
        _fetch(url, part, bool(expected), file.size, progress)
        wrong = _mismatch(part, expected)
        if not wrong:
            part.replace(path)
        _forget(part)
        if wrong:
            got = f"{wrong}; the download was deleted"
            fix = "run the command again; if this repeats, the publisher has changed the file"
            raise DataError(f"{url} with {expected}, as {stated_by} says", got, fix)
    lock.write(path, file.url)
    if expected:
        return []
    return [
        f"{path.name}: the publisher states no checksum; its SHA-256 was written to {LOCK}, and "
        "later downloads are compared with it"
    ]


def _expected(file: RemoteFile, url: str, path: Path, lock: _Lock) -> tuple[str, str]:
    """Checksum as "algorithm:digits" or empty, and who states it."""
    if file.checksum:
        return file.checksum, "the publisher"
    known = lock.sha256(path)
    if file.checksum_url and not (known and path.is_file()):
        beside = file.checksum_url if url == file.url else f"{url}.md5"
        with _open(beside) as answer:
            text = answer.read(1 << 12).decode("utf-8", "replace")
        found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
        if not found:
            raise DataError(f"an MD5 checksum at {beside}", repr(text[:40]), "try again later")
        return f"md5:{found.group().lower()}", f"the publisher's {beside}"
    return (f"sha256:{known}", f"{LOCK} since the first download") if known else ("", "")


def checksum(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file, `algorithm` "md5" or "sha256"."""
    with path.open("rb") as file:
        # MD5 is what the publisher gives; it finds broken files, not forged ones.
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest()


def _mismatch(path: Path, expected: str) -> str:
    """The checksum that the file has instead; "" if it is right or none is known."""
    algorithm, _, wanted = expected.partition(":")
    found = checksum(path, algorithm) if expected else wanted
    return "" if found == wanted else f"{algorithm}:{found}"


def _open(url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """The answer of `url`; an HTTP error or a missing network becomes a `DataError`."""
    request = urllib.request.Request(url, headers={"User-Agent": "modalign", **(headers or {})})
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
        return answer
    except urllib.error.HTTPError as error:
        if error.code == 416:
            raise
        error.close()
        fix = "check whether the publisher has moved it; a mirror can be given as base_url"
        raise DataError(f"the file at {url}", f"HTTP {error.code} {error.reason}", fix) from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"an answer from {url}",
            f"no connection ({getattr(error, 'reason', None) or error})",
            "check the network, or download the file in a browser and put it into the folder",
        ) from error


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _fetch(url: str, part: Path, verifiable: bool, size: int, progress: Progress) -> None:
    """Download `url` into `part`, resumed where it broke; `TRIES` tries without a byte end it."""
    failures, last = 0, "the connection was closed early"
    while failures < TRIES:
        before = _size(part)
        try:
            if _fetch_once(url, part, verifiable, size, progress):
                return
        except (OSError, http.client.HTTPException) as error:
            last = str(error) or type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
    got = f"{_size(part)} bytes, then {last}, {TRIES} times"
    fix = "run the command again later: it resumes the download"
    raise DataError(f"the whole file {url}", got, fix)


def _fetch_once(url: str, part: Path, verifiable: bool, size: int, progress: Progress) -> bool:
    """One request; whether the file is complete afterwards.

    Two halves are joined only if the server gives both the same version (ETag or date), or if a
    checksum can verify the result.
    """
    tag = _tag(part)
    version = tag.read_text() if tag.is_file() else ""
    have = _size(part) if version or verifiable else 0
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    try:
        answer = _open(url, {name: value for name, value in headers.items() if value})
    except urllib.error.HTTPError as error:
        # 416: nothing follows what is there. It is complete, or a remnant of another file.
        total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        error.close()
        if total != str(have):
            _forget(part)
        return total == str(have)
    with answer:
        resumed = answer.status == 206
        starts = (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
        if resumed and not starts:
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
                progress(done, total_bytes or size or None)
    return total_bytes is None or done == total_bytes


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive so that `folder` holds its content, all of it or nothing.

    A single folder around everything is left off. If `folder` already holds all members in their
    sizes, nothing is written.

    Raises:
        DataError: the archive is broken, or a member leads out of the folder or is a link.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = {info: _safe(archive, info) for info in file.infolist() if not info.is_dir()}
            around = len({path.parts[0] for path in members.values()}) == 1 and all(
                len(path.parts) > 1 for path in members.values()
            )
            targets = {i: Path(*p.parts[int(around) :]) for i, p in members.items()}
            if all(
                (folder / path).is_file() and _size(folder / path) == info.file_size
                for info, path in targets.items()
            ):
                return
            with write_folder_aside(folder) as aside:
                for info, path in targets.items():
                    (aside / path).parent.mkdir(parents=True, exist_ok=True)
                    with file.open(info) as source, (aside / path).open("wb") as target:
                        shutil.copyfileobj(source, target, BLOCK)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"a whole zip archive {archive}", str(error), "remove it and download it again"
        ) from error


def _safe(archive: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    """The path of a member, if it stays inside the folder and is a plain file."""
    path = PurePosixPath(info.filename.replace("\\", "/"))
    link = stat.S_ISLNK(info.external_attr >> 16)
    drive = bool(path.parts) and ":" in path.parts[0]
    if path.is_absolute() or ".." in path.parts or drive or link or not path.parts:
        got = f"{info.filename!r}{', a link' if link else ''}; nothing was unpacked"
        fix = "do not trust this archive; download it from its publisher"
        raise DataError(f"members of {archive.name} that stay inside its folder", got, fix)
    return path
