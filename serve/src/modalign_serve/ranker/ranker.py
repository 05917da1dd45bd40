"""The ranker: recommendations from an artifact, in one process, without torch.

All methods may be called from many threads at once. What changes while it runs is what people had
(`update`) and the items there are (`add_items`); each change replaces an immutable
record, so that a request sees all of it or nothing, and the next call sees it.

The file is long because half of it documents the calls.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modalign_serve.artifact.artifact import Artifact
from modalign_serve.artifact.read import Verify, read_artifact
from modalign_serve.errors import ConfigError
from modalign_serve.ranker.adapter import ContentAdapter, unit_rows
from modalign_serve.ranker.catalogue import Catalogue, Record
from modalign_serve.ranker.foldin import fold_in_of
from modalign_serve.ranker.index import Hnsw, Search, index_of, looked_up
from modalign_serve.ranker.people import (
    NOBODY,
    Basis,
    Block,
    Person,
    block_of,
    block_of_rows,
    person_of,
)
from modalign_serve.ranker.picking import picked
from modalign_serve.ranker.rules import Boost, Rules, Where
from modalign_serve.ranker.scoring import scores_of
from modalign_serve.ranker.topk import best_of_rows
from modalign_serve.ranker.why import Why, nearest_liked, parts_of

CELLS = 2**20
"""Scores computed at a time: 4 MB, which stays within the caches."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best items of each person (or item) asked for, best first.

    Attributes:
        rows: rows of items, int64, (B, k); -1 where fewer than k are left.
        scores: float32, (B, k); minus infinity where the row is -1.
        basis: what each list rests on: "trained", "updated", "folded" or "popular".
        catalogue: the items it was made from; turns rows into ids and metadata.
    """

    rows: np.ndarray
    scores: np.ndarray
    basis: tuple[Basis, ...]
    catalogue: Catalogue

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self, place: int = 0) -> list[str]:
        """Ids of the list of one person; as many as there are, at most k."""
        rows = self.rows[place]
        return self.catalogue.ids(rows[rows >= 0])

    def pairs(self, place: int = 0) -> list[tuple[str, float]]:
        """Ids and scores of the list of one person."""
        kept = self.rows[place] >= 0
        scores = self.scores[place][kept].tolist()
        return list(zip(self.ids(place), scores, strict=True))


@dataclass(frozen=True, slots=True)
class Reach:
    """Whom an item reaches.

    Attributes:
        asked: how many users were asked.
        users: ids of those whose list holds the item, and its place there (from 1), best first.
    """

    asked: int
    users: tuple[tuple[str, int], ...]


class Ranker:
    """Recommend from an artifact.

    Args:
        artifact: what to serve.
        fold_in: "map", "ridge" or "encoder"; None takes the best measured at export.
        search: "exact" scores every item; "hnsw" looks the best up in the artifact's index, where
            no rule but `exclude` and what was seen has to hold; "auto" does so where the artifact
            has an index.

    Raises:
        ArtifactError: a part is missing that this needs.

    Example:
        >>> from modalign_serve.artifact.sample import small_artifact
        >>> ranker = Ranker(small_artifact())
        >>> ranker.recommend(["u0"], k=3).ids()
        ['i1', 'i6', 'i7']
    """

    def __init__(
        self, artifact: Artifact, fold_in: str | None = None, search: Search = "auto"
    ) -> None:
        self.artifact = artifact
        self._index = index_of(artifact, search)
        self._scores = scores_of(artifact)
        self._fold = fold_in_of(artifact, fold_in)
        self._encodes = (fold_in or artifact.manifest.fold_in.get("default")) == "encoder"
        held = artifact.adapter
        names = artifact.manifest.adapter.get("modalities", ())
        self.adapter = None if held is None else ContentAdapter(held, names)
        self._catalogue = Catalogue(artifact)
        self._live: dict[str, Person] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        verify: Verify = "auto",
        fold_in: str | None = None,
        search: Search = "auto",
    ) -> Ranker:
        """Read an artifact and serve it; see `modalign_serve.artifact.read.read_artifact`."""
        return cls(read_artifact(folder, verify), fold_in, search)

    # ------------------------------------------------------------------ asking

    @property
    def catalogue(self) -> Catalogue:
        """The items there are now."""
        return self._catalogue

    def knows_user(self, user_id: str) -> bool:
        """Whether the artifact or an `update` has told of this user."""
        return user_id in self._live or self.artifact.user_ids.row(user_id) >= 0

    def history(self, user_id: str) -> list[str]:
        """Ids of all that is known a user had.

        Raises:
            UnknownIds: an unknown user.
        """
        return self._catalogue.ids(self._person(user_id).seen)

    def recommend(
        self,
        users: Sequence[str],
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Sequence[str] = (),
        allow: Sequence[str] | None = None,
        where: Where | None = None,
        boost: Sequence[Boost] = (),
        at_most_per: Mapping[str, int] | None = None,
        diversity: float = 0.0,
    ) -> Ranked:
        """The best `k` items for each user.

        A user without any history gets the most popular items (`basis` says so).

        Args:
            users: user ids.
            k: how many items, at least 1; more than there are gives all of them.
            filter_seen: leave out what the user had.
            exclude: ids never to be listed; unknown ones are ignored.
            allow: ids that alone may be listed; unknown ones are ignored.
            where: only items whose metadata meet this; see `modalign_serve.ranker.rules.Where`.
            boost: lifts of some items, added up; see `Boost`.
            at_most_per: by column of categories, at most so many items of one value; items
                without a value are not limited.
            diversity: from 0 (best scores) to 1; see `marginal_relevance`. Chosen among the best
                `max(100, 5 k)` of what the other rules leave.

        Raises:
            UnknownIds: an unknown user.
            ConfigError, UnknownName: a rule that cannot be followed.
        """
        rules = Rules(filter_seen, exclude, allow, where, boost, at_most_per or {}, diversity)
        return self._rank(self._blocks(users), len(users), k, rules)

    def recommend_for_items(
        self,
        items: Sequence[str],
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Sequence[str] = (),
        allow: Sequence[str] | None = None,
        where: Where | None = None,
        boost: Sequence[Boost] = (),
        at_most_per: Mapping[str, int] | None = None,
        diversity: float = 0.0,
    ) -> Ranked:
        """The best `k` items for one person who liked `items`; none gives popular items.

        Args:
            items: ids of items.
            k: how many items.
            filter_seen: leave out `items` themselves.
            exclude: as in `recommend`, like all that follow.
            allow: see there.
            where: see there.
            boost: see there.
            at_most_per: see there.
            diversity: see there.

        Raises:
            UnknownIds: an unknown item.
            ConfigError: the artifact has no way from items to a user's vector.
        """
        rules = Rules(filter_seen, exclude, allow, where, boost, at_most_per or {}, diversity)
        person = self._folded(NOBODY, self._catalogue.rows(items))
        block = block_of([person], self._scores.reads_history)
        return self._rank([block], 1, k, rules)

    def similar_items(
        self,
        items: Sequence[str],
        k: int = 10,
        *,
        where: Where | None = None,
        exclude: Sequence[str] = (),
    ) -> Ranked:
        """The `k` items nearest to each given one by the cosine of their vectors, itself left out.

        Args:
            items: ids.
            k: how many.
            where: only items whose metadata meet this.
            exclude: ids never to be listed.

        Raises:
            UnknownIds: an unknown item.
        """
        catalogue = self._catalogue
        _checked_k(k)
        rows = catalogue.rows(items)
        found = np.full((len(rows), min(k, len(catalogue))), -1, np.int64)
        scores = np.full(found.shape, -np.inf, np.float32)
        unit = self._unit_items(catalogue)
        rules = Rules(exclude=exclude, where=where)
        step = max(1, CELLS // max(1, len(catalogue)))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            cells = unit[some] @ unit.T
            cells[np.arange(len(some)), some] = -np.inf
            self._mask(cells, rules, catalogue)
            part = slice(start, start + len(some))
            found[part], scores[part] = best_of_rows(cells, found.shape[1])
        basis: list[Basis] = ["trained"] * len(rows)
        return Ranked(found, scores, tuple(basis), catalogue)

    def explain(
        self, item_id: str, *, user: str | None = None, items: Sequence[str] = (), n: int = 3
    ) -> Why:
        """Why an item would be in a list, for a user or for one who liked `items`.

        Args:
            item_id: the item.
            user: a known user; None takes `items`.
            items: ids of what an anonymous person liked.
            n: liked items named per modality.

        Raises:
            UnknownIds: an unknown user or item.
        """
        catalogue = self._catalogue
        row = catalogue.rows([item_id])
        if user is not None:
            person = self._person(user)
        else:
            person = self._folded(NOBODY, catalogue.rows(list(items)))
        liked = person.history[person.history != row[0]]
        nearest = {}
        for name in self.artifact.features:
            rows = catalogue.features(name, np.append(row, liked))
            found = nearest_liked(rows[0], rows[1:], n)
            nearest[name] = [(catalogue.id(int(liked[at])), cosine) for at, cosine in found]
        if person.vector is None or person.basis == "popular":
            return Why(item_id, None, nearest, {})
        vector = catalogue.vectors(row)[0]
        parts = parts_of(self.artifact, person.vector, vector)
        return Why(item_id, float(person.vector @ vector), nearest, parts)

    def reach(self, item_id: str, k: int = 20, sample: int = 1000) -> Reach:
        """In whose lists an item stands, among evenly spaced users of the artifact.

        Args:
            item_id: an item, added ones too.
            k: length of the lists.
            sample: most users asked.

        Raises:
            UnknownIds: an unknown item.
        """
        catalogue = self._catalogue
        row = int(catalogue.rows([item_id])[0])
        _checked_k(k)
        n = self.artifact.n_users
        asked = np.unique(np.linspace(0, n - 1, min(sample, n)).astype(np.int64))
        users = self.artifact.user_ids.take(asked)
        who, place = np.nonzero(self.recommend(users, k).rows == row)
        order = np.lexsort((who, place))
        found = ((users[int(who[at])], int(place[at]) + 1) for at in order)
        return Reach(len(users), tuple(found))

    # ------------------------------------------------------------------ telling

    def with_seen(self, user_id: str, items: Sequence[str]) -> None:
        """Tell that a user, known or new, had items; see `update`."""
        self.update({user_id: items})

    def update(self, seen: Mapping[str, Sequence[str]]) -> None:
        """Tell what users, known or new, had; lists and vectors follow in the next call.

        A new user's vector is folded in from the history. A trained one moves by what its fold-in
        moves: `trained + fold(all) - fold(before)`; where the fold-in is the model's own encoder
        it is `fold(all)`. Telling the same twice changes nothing.

        Raises:
            UnknownIds: an unknown item; nothing is changed then.
        """
        rows = {user: self._catalogue.rows(list(items)) for user, items in seen.items()}
        with self._lock:
            for user, new in rows.items():
                self._live[user] = self._moved(self._person_or_nobody(user), new)

    def hide(self, items: Mapping[str, Sequence[str]]) -> None:
        """Leave items out of users' lists from now on, without reading taste into it.

        Raises:
            UnknownIds: an unknown item; nothing is changed then.
        """
        rows = {user: self._catalogue.rows(list(hidden)) for user, hidden in items.items()}
        with self._lock:
            for user, new in rows.items():
                person = self._person_or_nobody(user)
                self._live[user] = replace(person, seen=np.union1d(person.seen, new))

    def adapt(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Vectors in the item space of items that have features only, (n, width).

        Args:
            features: (n, width of the modality) by name; see `ContentAdapter`.

        Raises:
            ConfigError: the artifact has no content adapter.
            UnknownName, DataError: features that do not fit it.
        """
        if self.adapter is None:
            raise ConfigError(
                "an artifact with a content adapter",
                f"one of {self.artifact.manifest.model} without",
                "export a model with item vectors from data with modalities",
            )
        return self.adapter(features)

    def add_item(
        self,
        item_id: str,
        vector: np.ndarray | None = None,
        record: Record | None = None,
        features: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """One new item: its vector (width,), or its features (width of the modality,) by modality.

        See `add_items`.
        """
        self.add_items(
            [item_id],
            None if vector is None else np.asarray(vector)[None],
            [record or {}],
            None if features is None else {k: np.asarray(v)[None] for k, v in features.items()},
        )

    def add_items(
        self,
        ids: Sequence[str],
        vectors: np.ndarray | None = None,
        records: Sequence[Record] | None = None,
        features: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """New items, ranked for everyone from the next call on.

        Args:
            ids: ids that the artifact does not have; one that was added before is replaced.
            vectors: in the item space, (len(ids), width); None: `adapt(features)`.
            records: metadata by column.
            features: (len(ids), width of the modality) by modality, as the encoders named in the
                manifest give them; also what `explain` compares.

        Raises:
            DataError: an id of the artifact, vectors of another shape or not finite, or a model
                without item vectors.
            ConfigError: no vectors, and no adapter or no features to make them from.
        """
        if self.artifact.manifest.kind != "factors":
            raise ConfigError(
                "a model whose scores are products of vectors, to rank items it never saw",
                f"{self.artifact.manifest.model}",
                "serve a model with vectors, or distil one: modalign distill",
            )
        if vectors is None:
            if not features:
                raise ConfigError("vectors or features of new items", "neither", "give one of them")
            vectors = self.adapt(features)
        given = records if records is not None else [{}] * len(ids)
        bases = self.artifact.bases
        reduced = {
            name: unit_rows(unit_rows(rows) @ bases[name])
            for name, rows in (features or {}).items()
            if name in bases
        }
        with self._lock:
            self._catalogue = self._catalogue.with_items(ids, vectors, given, reduced)

    # ------------------------------------------------------------------ inner parts

    def _person_or_nobody(self, user: str) -> Person:
        live = self._live.get(user)
        if live is not None:
            return live
        row = self.artifact.user_ids.row(user)
        return NOBODY if row < 0 else person_of(self.artifact, row)

    def _person(self, user: str) -> Person:
        live = self._live.get(user)
        if live is not None:
            return live
        row = self.artifact.user_ids.row(user)
        if row < 0:
            self.artifact.user_ids.rows([user])  # raises, naming the user
        return person_of(self.artifact, row)

    def _blocks(self, users: Sequence[str]) -> list[Block]:
        reads = self._scores.reads_history
        if len(users) == 1:
            return [block_of([self._person(users[0])], reads)]
        step = max(1, CELLS // max(1, len(self._catalogue)))
        parts = [users[start : start + step] for start in range(0, len(users), step)]
        if self._live and any(user in self._live for user in users):
            return [block_of([self._person(one) for one in part], reads) for part in parts]
        rows = self.artifact.user_ids.rows(users)
        edges = range(0, len(users), step)
        return [block_of_rows(self.artifact, rows[a : a + step], reads) for a in edges]

    def _folded(self, person: Person, rows: np.ndarray) -> Person:
        history = np.union1d(person.history, self._readable(rows))
        seen = np.union1d(person.seen, rows)
        if not len(history):
            return replace(NOBODY, seen=seen)
        if self._scores.reads_history:
            return Person(seen, history, None, "folded")
        return Person(seen, history, self._fold_in(history), "folded")

    def _fold_in(self, history: np.ndarray) -> np.ndarray:
        if self._fold is None:
            raise ConfigError(
                "an artifact with a way from items to a user's vector",
                f"one of {self.artifact.manifest.model} without",
                "export the run again with a fold-in",
            )
        return self._fold(history, self._catalogue.vectors(history))

    def _readable(self, rows: np.ndarray) -> np.ndarray:
        """Rows that the model can read: its own encoder and its item-item matrix know no others."""
        own = self._scores.reads_history or self._encodes
        return rows[rows < self.artifact.n_items] if own else rows

    def _moved(self, person: Person, rows: np.ndarray) -> Person:
        seen = np.union1d(person.seen, rows)
        fresh = np.setdiff1d(self._readable(rows), person.history)
        if not len(fresh):
            return replace(person, seen=seen)
        if person.basis not in ("trained", "updated"):
            return self._folded(person, rows)
        history = np.union1d(person.history, fresh)
        if person.vector is None:
            return Person(seen, history, None, "updated")
        vector = self._fold_in(history)
        if not self._encodes:
            vector = person.vector + vector - self._fold_in(person.history)
        return Person(seen, history, vector, "updated")

    def _unit_items(self, catalogue: Catalogue) -> np.ndarray:
        vectors = catalogue.vectors(np.arange(len(catalogue)))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: np.ndarray = vectors / np.maximum(lengths, 1e-12)
        return unit

    def _buffer(self, n_rows: int, width: int) -> np.ndarray:
        """Memory for scores, kept by each thread: fresh pages would cost more than the product."""
        held: np.ndarray | None = getattr(self._local, "scores", None)
        if held is None or held.size < n_rows * width:
            held = self._local.scores = np.empty(n_rows * width, np.float32)
        return held[: n_rows * width].reshape(n_rows, width)

    def _rank(self, blocks: Sequence[Block], n: int, k: int, rules: Rules) -> Ranked:
        _checked_k(k)
        catalogue = self._catalogue
        k = min(k, len(catalogue))
        if len(blocks) == 1:
            rows, scores = self._best(blocks[0], k, rules, catalogue)
            return Ranked(rows, scores, blocks[0].basis, catalogue)
        parts = [self._best(block, k, rules, catalogue) for block in blocks]
        basis = tuple(one for block in blocks for one in block.basis)
        empty_rows, empty_scores = np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
        return Ranked(
            np.concatenate([empty_rows, *(rows for rows, _ in parts)]),
            np.concatenate([empty_scores, *(scores for _, scores in parts)]),
            basis,
            catalogue,
        )

    def _best(
        self, block: Block, k: int, rules: Rules, catalogue: Catalogue
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._index is not None and rules.only_hides and not block.popular:
            found = self._looked_up(self._index, block, k, rules, catalogue)
            if found is not None:
                return found
        cells = self._buffer(block.n, len(catalogue))
        self._scores.fill(block, catalogue, cells)
        if block.popular:
            cells[block.popular] = catalogue.counts()
        if rules.boost:
            self._boost(cells, rules.boost, catalogue)
        self._mask(cells, rules, catalogue)
        if rules.filter_seen:
            owner, items = block.seen
            cells[owner, items] = -np.inf
        if rules.diversity or rules.at_most_per:
            return picked(cells, k, rules, catalogue)
        return best_of_rows(cells, k)

    def _looked_up(
        self, index: Hnsw, block: Block, k: int, rules: Rules, catalogue: Catalogue
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """From the index; None where it found too few."""
        owner, items = block.seen
        if not rules.filter_seen:
            owner, items = owner[:0], items[:0]
        hidden = catalogue.find(list(rules.exclude))
        hidden = hidden[hidden >= 0]
        if len(hidden):
            owner = np.append(owner, np.repeat(np.arange(block.n), len(hidden)))
            items = np.append(items, np.tile(hidden, block.n))
        return looked_up(index, block, owner, items, k, catalogue)

    def _boost(self, cells: np.ndarray, boosts: Sequence[Boost], catalogue: Catalogue) -> None:
        spread = cells.std(axis=1, dtype=np.float64)
        lift = np.zeros(len(catalogue))
        for boost in boosts:
            met = np.zeros(len(catalogue), bool)
            if boost.where is not None:
                met |= catalogue.meets(boost.where)
            rows = catalogue.find(list(boost.items))
            met[rows[rows >= 0]] = True
            lift[met] += boost.amount
        cells += (spread[:, None] * lift).astype(np.float32)

    def _mask(self, cells: np.ndarray, rules: Rules, catalogue: Catalogue) -> None:
        if rules.where:
            cells += catalogue.mask(rules.where)
        if rules.allow is not None:
            rows = catalogue.find(list(rules.allow))
            hidden = np.ones(len(catalogue), bool)
            hidden[rows[rows >= 0]] = False
            cells[:, hidden] = -np.inf
        if len(rules.exclude):
            rows = catalogue.find(list(rules.exclude))
            cells[:, rows[rows >= 0]] = -np.inf


def _checked_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ConfigError("k of at least 1", repr(k), "ask for at least one item")
