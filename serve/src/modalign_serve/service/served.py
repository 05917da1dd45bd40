"""The served models: a ranker for each, replaced in one step, and the split of the traffic."""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modalign_serve.artifact.manifest import NAME
from modalign_serve.errors import ArtifactError, ConfigError, Failure, InputError, UnknownName
from modalign_serve.ranker.people import Person
from modalign_serve.ranker.ranker import Ranker
from modalign_serve.service.schemas import PLAIN
from modalign_serve.stores.feedback import KINDS

IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
          ".gif": "image/gif"}  # fmt: skip
"""Content types of the pictures that are served, by suffix."""


@dataclass(slots=True)
class _Pending:
    """Feedback of a user that the ranker does not know yet."""

    liked: dict[str, None] = field(default_factory=dict)  # these move the vector and are seen
    hidden: dict[str, None] = field(default_factory=dict)  # only left out of the lists


class Served:
    """A ranker with its name and version, and the feedback that it has not read yet.

    Feedback is folded into a user's vector at the user's next request, not on arrival: a shop
    sends far more events than it asks for lists, and a start with millions of stored events takes
    no longer than reading them. Only the thread of the event loop calls `add_events` and `find`.

    Args:
        name: the model's name in paths.
        folder: of its artifact.
        ranker: made from it.
    """

    def __init__(self, name: str, folder: Path, ranker: Ranker) -> None:
        self.name, self.folder, self.ranker = name, folder, ranker
        self.version = version_of(folder)
        self._pending: dict[str, _Pending] = {}

    @classmethod
    def open(cls, name: str, folder: Path) -> Served:
        """Read an artifact, check it, and make one list, so that the first caller need not wait.

        Raises:
            ArtifactError: it cannot be served.
        """
        try:
            served = cls(name, folder, Ranker.open(folder))
            users = served.ranker.artifact.user_ids
            if len(users):
                served.ranker.recommend([users[0]], 10)
        except (InputError, OSError):
            raise
        except Exception as error:
            # Whatever contradicts itself in the files, and was not found by name.
            raise ArtifactError(
                "an artifact that can be served", f"{folder}: {type(error).__name__}: {error}",
                "export the run again, or serve the previous artifact",
            ) from error  # fmt: skip
        return served

    def add_events(self, events: Iterable[tuple[str, str, str]]) -> None:
        """Take (user_id, item_id, kind) of events; the next list of the user depends on them."""
        pending = self._pending
        for user, item, kind in events:
            meaning = KINDS.get(kind)
            if meaning is None:
                continue
            of_user = pending.get(user)
            if of_user is None:
                of_user = pending[user] = _Pending()
            if not meaning.seen:
                continue  # a view makes the user known, and nothing more
            (of_user.liked if meaning.liked else of_user.hidden)[item] = None

    def find(self, user: str) -> Person | None:
        """What is known of a user, by training or feedback; None for an unknown one."""
        pending = self._pending.pop(user, None) if self._pending else None
        if pending is not None:
            self._fold_in(user, pending)
        return self.ranker.find(user)

    def picture_name(self, row: int) -> str | None:
        """The name of an item's picture, if it has one of a type that browsers show."""
        name = self.ranker.catalogue.picture_name(row)
        return name if name is not None and Path(name).suffix.lower() in IMAGES else None

    def picture(self, row: int) -> tuple[bytes, str] | None:
        """Content and type of an item's picture, if it has one."""
        name, pictures = self.picture_name(row), self.ranker.artifact.pictures
        if name is None or pictures is None:
            return None
        return pictures.read(name), IMAGES[Path(name).suffix.lower()]

    def _fold_in(self, user: str, pending: _Pending) -> None:
        liked, hidden = self._known(pending.liked), self._known(pending.hidden)
        if liked:
            try:
                self.ranker.update({user: liked})
            except ConfigError:
                # The artifact has no fold-in: the items are seen, and nothing more.
                hidden = [*liked, *hidden]
        if hidden or (not liked and self.ranker.find(user) is None):
            self.ranker.hide({user: hidden})

    def _known(self, items: Mapping[str, None]) -> list[str]:
        """The items in the catalogue: feedback about other models' items is stored, not read."""
        listed = list(items)
        if not listed:
            return listed
        rows = self.ranker.catalogue.find(listed)
        return [one for one, row in zip(listed, rows.tolist(), strict=True) if row >= 0]


def version_of(folder: Path) -> str:
    """Twelve hexadecimal digits that differ if anything in the artifact differs."""
    return hashlib.sha256((folder / NAME).read_bytes()).hexdigest()[:12]


class ServedModels:
    """Served models by name, and the split of traffic between them.

    Args:
        served: the models; the first is the default.
        split: share by name, adding up to 1; empty for all traffic to the first.
    """

    def __init__(self, served: Sequence[Served], split: Mapping[str, float]) -> None:
        self._by_name = {one.name: one for one in served}
        shares = dict(split) or {served[0].name: 1.0}
        self.shares = {name: float(shares.get(name, 0.0)) for name in self._by_name}
        self._names = [name for name, share in self.shares.items() if share > 0]
        edges, total = [], 0.0
        for name in self._names:
            total += self.shares[name]
            edges.append(total)
        self._edges = edges

    def __iter__(self) -> Iterator[Served]:
        return iter(self._by_name.values())

    def names(self) -> list[str]:
        """All names."""
        return list(self._by_name)

    def get(self, name: str) -> Served:
        """A model by name.

        Raises:
            Failure: 404 for an unknown name; the nearest is suggested.
        """
        found = self._by_name.get(name)
        if found is None:
            error = UnknownName("served model", name, self._by_name)
            raise Failure(404, error.expected, error.got, error.fix)
        return found

    def of_user(self, user: str) -> Served:
        """The model that the split assigns to a user: always the same one.

        The user's hash, as a number from 0 to 1, falls into one of the shares.
        """
        if len(self._names) == 1:
            return self._by_name[self._names[0]]
        digest = hashlib.blake2b(user.encode(), digest_size=8, person=b"modalign").digest()
        place = int.from_bytes(digest, "big") / 2**64
        which = min(bisect.bisect_right(self._edges, place), len(self._names) - 1)
        return self._by_name[self._names[which]]

    def replace(self, served: Served) -> Served:
        """Serve a model from another ranker from now on; returns the one before."""
        old = self._by_name[served.name]
        self._by_name[served.name] = served
        return old


def beside(folder: Path, name: str) -> Path:
    """A folder beside another, by its plain name; no other folder can be reached.

    Raises:
        Failure: 422 if the name is a path, 404 if there is no such artifact.
    """
    if not re.search(PLAIN, name):
        raise Failure(
            422, "the plain name of a folder", repr(name),
            f"put the artifact beside {folder.name} and send its name",
        )  # fmt: skip
    root = folder.resolve().parent
    path = root / name
    # A link may lead anywhere; its target must lie here as well.
    if path.resolve().parent != root or not (path / NAME).is_file():
        raise Failure(
            404, f"an artifact beside {folder.name}", f"none called {name!r}",
            f"copy it there, with its {NAME}",
        )  # fmt: skip
    return path
