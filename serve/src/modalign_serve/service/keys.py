"""API keys: shown once, stored as hashes, compared in constant time.

A key carries 256 random bits, so a plain SHA-256 is as hard to invert as a slow hash, and costs a
microsecond per request instead of a tenth of a second.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from modalign_serve.errors import ConfigError, DataError

ROLES = ("use", "admin")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Key:
    """A key: its holder and its rights.

    Attributes:
        name: for logs and rate limits.
        role: "use" may ask and send feedback; "admin" may also swap artifacts and export feedback.
    """

    name: str
    role: str
    sha256: str


class Keys:
    """The keys of a file with one JSON object per line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "keys"
        >>> word = new_key(path, "shop")
        >>> keys = Keys.load(path)
        >>> keys.find(word).name, keys.find("guess")
        ('shop', None)
    """

    def __init__(self, keys: list[Key]) -> None:
        self.keys = keys

    @classmethod
    def load(cls, path: str | Path) -> Keys:
        """Read a file that `new_key` wrote.

        Raises:
            DataError: it does not exist, is empty, or has a line that is not a key.
        """
        path = Path(path)
        fix = f"make one with `modalign-serve key NAME --keys {path}`"
        if not path.is_file():
            raise DataError("a file of API keys", f"{path}, which is not a file", fix)
        found = []
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                one = json.loads(line)
                key = Key(one["name"], one["role"], one["sha256"])
                valid = key.role in ROLES and re.fullmatch("[0-9a-f]{64}", key.sha256)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError("a JSON object with name, role and sha256", where, fix) from error
            if not valid:
                wanted = f"a role of {' or '.join(ROLES)} and 64 hexadecimal digits"
                raise DataError(wanted, where, fix)
            found.append(key)
        if not found:
            raise DataError("at least one API key", f"none in {path}", fix)
        return cls(found)

    def find(self, word: str) -> Key | None:
        """The key with this word, or None; every hash is compared, so time reveals nothing."""
        digest = hashlib.sha256(word.encode("utf-8", "replace")).hexdigest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def new_key(path: str | Path, name: str, role: str = "use") -> str:
    """Add a key's hash to the file, and return the key, which is not stored.

    Args:
        path: of the file; it is created if there is none.
        name: of the holder, for logs and limits.
        role: "use" or "admin".

    Raises:
        ConfigError: the name is taken or not fit for logs.
        DataError: the file exists and is not a file of keys.
    """
    path = Path(path)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "a name of up to 64 letters, digits, dots and dashes", repr(name), "choose another name"
        )
    taken = {key.name for key in Keys.load(path).keys} if path.exists() else set()
    if name in taken:
        fix = f"choose another, or remove its line from {path} first"
        raise ConfigError("a name that no key has yet", repr(name), fix)
    word = "ma_" + secrets.token_urlsafe(32)
    line = json.dumps(
        {"name": name, "role": role, "sha256": hashlib.sha256(word.encode()).hexdigest()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "a") as file:
        file.write(line + "\n")
    return word


def presented(authorization: bytes | None) -> str | None:
    """The key of an Authorization header: `Bearer KEY`, or the password of `Basic`.

    The dialogue of a browser sends the latter.

    Example:
        >>> presented(b"Bearer abc"), presented(b"Basic dTpwdw=="), presented(b"Digest x")
        ('abc', 'pw', None)
    """
    scheme, _, rest = (authorization or b"").partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"bearer" and rest:
        return rest.decode("utf-8", "replace")
    if scheme.lower() == b"basic":
        try:
            plain = base64.b64decode(rest, validate=True)
        except binascii.Error:
            return None
        return plain.partition(b":")[2].decode("utf-8", "replace")
    return None
