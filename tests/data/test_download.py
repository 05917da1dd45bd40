"""Fetching against a server of our own: what breaks on the way, and what must stay whole."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modalign.data import download, official
from modalign.data.official import DatasetRecord, RemoteFile
from modalign.errors import ConfigError, DataError, UnknownName


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


ARCHIVE = zipped({"toy/u.data": b"1\t2\t3\n" * 2000, "toy/sub/README": b"terms"})
MD5 = hashlib.md5(ARCHIVE, usedforsecurity=False).hexdigest()


@dataclass
class Mirror:
    """A server of a folder of bytes, with the faults a test asks for."""

    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)  # one entry per answer cut short
    ranges: bool = True
    etag: str = '"1"'
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    state = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, wanted = self.path.strip("/"), self.headers.get("Range")
            state.asked.append((name, wanted))
            if name not in state.files:
                self.send_error(404)
                return
            body, start = state.files[name], 0
            same = self.headers.get("If-Range") in (None, state.etag)
            if wanted and state.ranges and same:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            stop = start + state.break_after.pop(0) if state.break_after else len(body)
            self.wfile.write(body[start:stop])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small data sets: checksum known, checksum published beside, no checksum."""

    def add(name: str, *files: RemoteFile) -> None:
        entry = DatasetRecord(name, "movielens", files, "Terms of toy.", "Toy 2020.")
        monkeypatch.setitem(official.RECORDS, name, entry)

    base = "http://publisher.invalid"
    add("toy", RemoteFile(f"{base}/toy.zip", f"md5:{MD5}"))
    add("beside", RemoteFile(f"{base}/beside.zip", "", f"{base}/beside.zip.md5"))
    add("plain", RemoteFile(f"{base}/a.dat"), RemoteFile(f"{base}/b.dat"))


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_get_fetches_verifies_unpacks_and_shows_terms(
    mirror: Mirror, toy: None, tmp_path: Path
) -> None:
    mirror.files["toy.zip"] = ARCHIVE
    seen: list[tuple[int, int | None]] = []
    got = download.get("toy", tmp_path, mirror.url, lambda *a: seen.append(a))
    assert got.folder == tmp_path / "toy"
    assert names(got.folder) == ["sub/README", "u.data"]
    assert (got.folder / "u.data").read_bytes() == b"1\t2\t3\n" * 2000
    assert (got.licence, got.citation, got.source, got.remarks) == (
        "Terms of toy.",
        "Toy 2020.",
        "movielens",
        (),
    )
    assert seen[-1] == (len(ARCHIVE), len(ARCHIVE))
    lock = json.loads((tmp_path / "downloads.lock.json").read_text())
    assert lock["toy.zip"]["sha256"] == hashlib.sha256(ARCHIVE).hexdigest()
    assert not list(tmp_path.glob("*.part*"))
    assert json.loads(json.dumps(got.to_dict()))["folder"] == str(tmp_path / "toy")


def test_second_get_asks_for_nothing(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    mirror.files["toy.zip"] = ARCHIVE
    download.get("toy", tmp_path, mirror.url)
    (tmp_path / "toy" / "u.data").unlink()
    mirror.asked.clear()
    download.get("toy", tmp_path, mirror.url)
    assert mirror.asked == []
    assert (tmp_path / "toy" / "u.data").is_file()


def test_broken_connection_goes_on_from_there(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    mirror.files["toy.zip"] = ARCHIVE
    mirror.break_after = [1000, 500]
    download.get("toy", tmp_path, mirror.url)
    assert [wanted for _, wanted in mirror.asked] == [None, "bytes=1000-", "bytes=1500-"]
    assert (tmp_path / "toy.zip").read_bytes() == ARCHIVE


def test_truncated_file_is_refused_and_resumed_later(
    mirror: Mirror, toy: None, tmp_path: Path
) -> None:
    mirror.files["toy.zip"] = ARCHIVE
    mirror.break_after = [1000, 0, 0, 0]
    with pytest.raises(DataError, match=r"the whole file .*toy\.zip.*1000 bytes.*run the command"):
        download.get("toy", tmp_path, mirror.url)
    assert not (tmp_path / "toy.zip").exists()
    assert (tmp_path / "toy.zip.part").stat().st_size == 1000
    mirror.asked.clear()
    download.get("toy", tmp_path, mirror.url)
    assert mirror.asked == [("toy.zip", "bytes=1000-")]


def test_resume_starts_over_where_the_file_has_changed(
    mirror: Mirror, toy: None, tmp_path: Path
) -> None:
    mirror.files |= {"a.dat": b"old " * 100, "b.dat": b"b"}
    mirror.break_after = [100, 0, 0, 0]
    with pytest.raises(DataError, match=r"the whole file .*a\.dat"):
        download.get("plain", tmp_path, mirror.url)
    mirror.files["a.dat"], mirror.etag = b"new " * 100, '"2"'
    download.get("plain", tmp_path, mirror.url)
    assert (tmp_path / "plain" / "a.dat").read_bytes() == b"new " * 100


def test_halves_are_not_joined_without_version_or_checksum(
    mirror: Mirror, toy: None, tmp_path: Path
) -> None:
    mirror.files |= {"a.dat": b"0123456789", "b.dat": b"b"}
    mirror.etag, mirror.break_after = "", [5]
    download.get("plain", tmp_path, mirror.url)
    assert [wanted for name, wanted in mirror.asked if name == "a.dat"] == [None, None]
    assert (tmp_path / "plain" / "a.dat").read_bytes() == b"0123456789"


def test_server_without_ranges_sends_all_again(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    mirror.files["toy.zip"] = ARCHIVE
    mirror.ranges, mirror.break_after = False, [700]
    download.get("toy", tmp_path, mirror.url)
    assert (tmp_path / "toy.zip").read_bytes() == ARCHIVE


def test_part_that_is_whole_already_is_taken(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    mirror.files["toy.zip"] = ARCHIVE
    (tmp_path / "toy.zip.part").write_bytes(ARCHIVE)
    download.get("toy", tmp_path, mirror.url)
    assert mirror.asked == [("toy.zip", f"bytes={len(ARCHIVE)}-")]


def test_remnant_longer_than_the_file_is_dropped(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    mirror.files["toy.zip"] = ARCHIVE
    (tmp_path / "toy.zip.part").write_bytes(ARCHIVE + b"more")
    download.get("toy", tmp_path, mirror.url)
    assert (tmp_path / "toy.zip").read_bytes() == ARCHIVE


def test_wrong_checksum_leaves_what_was_good(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "u.data").write_text("mine")
    mirror.files["toy.zip"] = ARCHIVE[:-1] + b"x"
    with pytest.raises(DataError, match=rf"md5:{MD5}, as the publisher says, got md5:"):
        download.get("toy", tmp_path, mirror.url)
    assert names(tmp_path) == ["toy/u.data"]
    assert (tmp_path / "toy" / "u.data").read_text() == "mine"


def test_wrong_file_of_the_users_is_left_alone(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    mirror.files["toy.zip"] = ARCHIVE
    (tmp_path / "toy.zip").write_bytes(b"something of mine")
    with pytest.raises(DataError, match=r"was left as it is.*move the file away"):
        download.get("toy", tmp_path, mirror.url)
    assert (tmp_path / "toy.zip").read_bytes() == b"something of mine"
    assert mirror.asked == []


@pytest.mark.parametrize(
    "text",
    [f"MD5 (beside.zip) = {MD5}\n", f"{MD5.upper()}  beside.zip\n"],
    ids=["bsd", "gnu"],  # the archive, and so its sum, carries the time it was made at
)
def test_checksum_is_read_from_the_publisher(
    mirror: Mirror, toy: None, tmp_path: Path, text: str
) -> None:
    mirror.files |= {"beside.zip": ARCHIVE, "beside.zip.md5": text.encode()}
    assert download.get("beside", tmp_path, mirror.url).remarks == ()
    (tmp_path / "beside.zip").unlink()
    mirror.files["beside.zip"] = ARCHIVE + b"x"
    with pytest.raises(DataError, match=r"as the publisher's http.*beside\.zip\.md5 says"):
        download.get("beside", tmp_path, mirror.url)


def test_page_instead_of_a_checksum(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    mirror.files |= {"beside.zip": ARCHIVE, "beside.zip.md5": b"<html>moved</html>"}
    with pytest.raises(DataError, match=r"an MD5 checksum at .*got '<html>moved"):
        download.get("beside", tmp_path, mirror.url)


def test_first_download_is_locked_and_said_so(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    mirror.files |= {"a.dat": b"one", "b.dat": b"two"}
    first = download.get("plain", tmp_path, mirror.url)
    assert len(first.remarks) == 2
    assert "states no checksum" in first.remarks[0]
    assert "downloads.lock.json" in first.remarks[0]
    (tmp_path / "plain" / "a.dat").unlink()
    mirror.files["a.dat"] = b"changed"
    with pytest.raises(DataError, match=r"as downloads\.lock\.json since the first download says"):
        download.get("plain", tmp_path, mirror.url)
    assert names(tmp_path) == ["downloads.lock.json", "plain/b.dat"]


def test_unreadable_lock_file(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    (tmp_path / "downloads.lock.json").write_text("{half")
    with pytest.raises(DataError, match="a lock file of earlier downloads"):
        download.get("toy", tmp_path, mirror.url)


def test_missing_file_on_the_server(mirror: Mirror, toy: None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got HTTP 404 .*publisher has moved it"):
        download.get("toy", tmp_path, mirror.url)
    assert names(tmp_path) == []


def test_no_network(toy: None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"an answer from .*no connection .*check the network"):
        download.get("toy", tmp_path, "http://127.0.0.1:9")


def test_unknown_name_and_address(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'ml-100k'") as caught:
        download.get("ml100k", tmp_path)
    assert "citeulike-t" in str(caught.value)
    assert "amazon" not in str(caught.value)
    with pytest.raises(UnknownName, match="did you mean 'amazon-2023-All_Beauty'"):
        download.get("amazon-2023-all_beauty", tmp_path)
    with pytest.raises(ConfigError, match="http://"):
        download.get("ml-100k", tmp_path, "file:///etc")


@pytest.mark.parametrize(
    "name", ["../evil", "toy/../../evil", "/evil", "C:/evil", "..\\evil"], ids=repr
)
def test_archive_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "in" / "bad.zip"
    archive.parent.mkdir()
    archive.write_bytes(zipped({"good": b"1", name: b"2"}))
    with pytest.raises(DataError, match=r"stay inside its folder.*nothing was unpacked"):
        download.unpack(archive, tmp_path / "in" / "out")
    assert names(tmp_path) == ["in/bad.zip"]


def test_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="a link"):
        download.unpack(tmp_path / "bad.zip", tmp_path / "out")


def test_broken_archive_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "u.data").write_text("mine")
    (tmp_path / "bad.zip").write_bytes(ARCHIVE[: len(ARCHIVE) // 2])
    with pytest.raises(DataError, match="a whole zip archive"):
        download.unpack(tmp_path / "bad.zip", tmp_path / "out")
    flipped = bytearray(ARCHIVE)
    flipped[200] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(bytes(flipped))
    with pytest.raises(DataError, match=r"a whole zip archive.*CRC"):
        download.unpack(tmp_path / "bad.zip", tmp_path / "out")
    assert names(tmp_path / "out") == ["u.data"]
    assert (tmp_path / "out" / "u.data").read_text() == "mine"


def test_archive_without_a_folder_around(tmp_path: Path) -> None:
    (tmp_path / "flat.zip").write_bytes(zipped({"a": b"1", "b/c": b"2"}))
    download.unpack(tmp_path / "flat.zip", tmp_path / "out")
    assert names(tmp_path / "out") == ["a", "b/c"]


def test_every_record_is_complete() -> None:
    for name, entry in official.RECORDS.items():
        assert entry.name == name
        assert entry.source in ("movielens", "citeulike", "amazon")
        assert len(entry.licence) > 40
        assert len(entry.citation) > 40
        for file in entry.files:
            assert file.url.startswith("https://")
            if file.checksum:
                algorithm, _, digits = file.checksum.partition(":")
                assert len(digits) == {"md5": 32, "sha256": 64}[algorithm]
    assert {"ml-100k", "ml-1m", "ml-20m", "ml-25m", "ml-32m"} <= set(official.RECORDS)
    assert {"citeulike-a", "citeulike-t", "amazon-2014-Baby"} <= set(official.RECORDS)
    assert "amazon-2023-Baby_Products" in official.RECORDS
