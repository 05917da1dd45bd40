"""The content of forms, and the state that a page keeps in its address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from modalign_serve.errors import Failure

MAX_LIKED = 50
SIZES = (6, 12, 24, 48)
MAX_FIELDS = 200
_NAME = re.compile(rb'\bname="([^"]*)"')


@dataclass(frozen=True)
class Form:
    """Texts, and files that are not empty, by the name of their field, in order.

    Attributes:
        texts: all values of each field.
        files: content of each file that is not empty.
    """

    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The first value, stripped; empty if there is none."""
        return next(iter(self.texts.get(name, ())), "").strip()


def read_query(query: bytes) -> Form:
    """The query of an address.

    Raises:
        Failure: 422 for more fields than the pages send.
    """
    try:
        pairs = parse_qsl(query.decode("latin-1"), True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise _too_many() from error
    texts: dict[str, list[str]] = {}
    for name, value in pairs:
        texts.setdefault(name, []).append(value)
    return Form(texts)


def read_form(body: bytes, content_type: str) -> Form:
    r"""The body of a form, with files or without.

    Raises:
        Failure: 415 for another content type, 400 for malformed parts, 422 for more fields than
            the pages send.

    Example:
        >>> read_form(b"q=a+b&q=c", "application/x-www-form-urlencoded").texts
        {'q': ['a b', 'c']}
        >>> body = b'--x\r\nContent-Disposition: form-data; name="q"\r\n\r\na b\r\n--x--'
        >>> read_form(body, "multipart/form-data; boundary=x").text("q")
        'a b'
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return read_query(body)
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if kind != "multipart/form-data" or boundary is None:
        raise Failure(415, "a form of the page", kind or "no content type", "use the page")
    texts: dict[str, list[str]] = {}
    files: dict[str, bytes] = {}
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.group(1).encode("latin-1"))
    if len(parts) > MAX_FIELDS:
        raise _too_many()
    for part in parts[1:-1]:
        head, gap, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not gap or name is None:
            raise Failure(400, "parts with a name", "one without", "send the form again")
        key = name.group(1).decode("utf-8", "replace")
        if b'filename="' in head:
            if content:
                files[key] = content
        else:
            texts.setdefault(key, []).append(content.decode("utf-8", "replace"))
    return Form(texts, files)


def _too_many() -> Failure:
    return Failure(422, f"at most {MAX_FIELDS} fields", "more", "go back to the first page")


@dataclass(frozen=True)
class State:
    """The user and the list that a page is about; every page keeps it in its address.

    Attributes:
        liked: ids of items that an anonymous user likes; empty if there is a user.
        diversity: from 0 to 1.
        only: a category, or empty for all.
        q: words to search for.
    """

    model: str
    user: str = ""
    liked: tuple[str, ...] = ()
    k: int = 12
    diversity: float = 0.0
    only: str = ""
    other: str = ""
    q: str = ""

    @classmethod
    def of(cls, form: Form, default_model: str) -> State:
        """The state of an address; missing and invalid values are replaced by the defaults.

        Example:
            >>> State.of(read_query(b"liked=a&liked=b&liked=a&k=7"), "shop").liked
            ('a', 'b')
        """
        user = form.text("user")
        size = form.text("k")
        liked = () if user else tuple(dict.fromkeys(form.texts.get("liked", ())))[:MAX_LIKED]
        return cls(
            form.text("model") or default_model,
            user,
            tuple(one for one in liked if one),
            int(size) if size in map(str, SIZES) else cls.k,
            {"some": 0.3, "much": 0.6}.get(form.text("mix"), 0.0),
            form.text("only"),
            form.text("other"),
            form.text("q")[:200],
        )

    @property
    def mix(self) -> str:
        """The diversity as a word."""
        return {0.3: "some", 0.6: "much"}.get(self.diversity, "")

    def pairs(self, *left_out: str) -> list[tuple[str, str]]:
        """Names and values for an address or hidden fields, without defaults and `left_out`."""
        known: list[tuple[str, str]] = [("model", self.model)]
        known += [("user", self.user)] if self.user else [("liked", one) for one in self.liked]
        known += [("k", str(self.k))] if self.k != State.k else []
        known += [("mix", self.mix), ("only", self.only), ("other", self.other), ("q", self.q)]
        return [(name, value) for name, value in known if value and name not in left_out]

    def to(self, page: str, *more: tuple[str, str], **changes: Any) -> str:
        """The address of a page with this state.

        Args:
            page: its name.
            *more: further pairs for the address.
            **changes: of the state.

        Example:
            >>> State("shop", liked=("a&b",)).to("item", ("item", "c"))
            'item?model=shop&liked=a%26b&item=c'
        """
        return f"{page}?{urlencode([*replace(self, **changes).pairs(), *more])}"

    def liking(self, item: str) -> State:
        """The state with one more liked item, or without it if it is liked already, and no user."""
        without = tuple(one for one in self.liked if one != item)
        liked = without if item in self.liked else (*self.liked, item)
        return replace(self, user="", liked=liked[-MAX_LIKED:], q=self.q)
