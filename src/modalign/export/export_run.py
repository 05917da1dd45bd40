"""From a fitted run to an artifact, with its differences from the trained model measured."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from modalign.core import seeds
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError
from modalign.experiments.fit import load_model
from modalign.experiments.fitted import FittedModel
from modalign.experiments.run_folder import not_finite
from modalign.export.columns import columns_of, picture_column, pictures_of
from modalign.export.content import read_content, train_adapter
from modalign.export.fidelity import best_lists, csr_of, overlap
from modalign.export.folding import KnownUsers, fit_fold_ins
from modalign.export.scores import ScoringParts, encoder_loss, onnx_bytes, scored
from modalign_serve.artifact.artifact import Artifact
from modalign_serve.artifact.manifest import Dtype, Manifest, read_manifest
from modalign_serve.artifact.strings import Ids
from modalign_serve.artifact.write import quantised, restored, write_artifact
from modalign_serve.ranker.foldin import encoder_fold, session
from modalign_serve.ranker.index import FROM, Hnsw

log = logging.getLogger("modalign.export")

K = 20
SAMPLE = 1_000
"""Maximum number of users on whom losses are measured."""
Index = Literal["auto", "exact", "hnsw"]


@dataclass(frozen=True)
class Exported:
    """The written artifact.

    Attributes:
        left_out: columns of the item table of types that an artifact cannot store.
    """

    folder: Path
    manifest: Manifest
    left_out: list[str]
    seconds: float

    def __repr__(self) -> str:
        one = self.manifest
        sizes = f"{one.n_users:,} users, {one.n_items:,} items"
        return f"Exported({self.folder}: {one.model}, {one.kind}; {sizes})"


def export(run: str | Path | FittedModel, folder: str | Path, **options: Any) -> Exported:
    """Write the artifact of a run, which `modalign serve` serves.

    Args:
        run: a run folder, or a fitted model.
        folder: to write.
        options: of `export_run`: dtype, index, adapter, images, overwrite.

    Raises:
        RunError: no finished run there.
        ConfigError, ArtifactError: as `export_run`.
    """
    return export_run(run if isinstance(run, FittedModel) else load_model(run), folder, **options)


def export_run(
    fitted: FittedModel,
    folder: str | Path,
    *,
    dtype: Dtype = "float32",
    index: Index = "auto",
    adapter: bool = True,
    images: bool = True,
    overwrite: bool = False,
) -> Exported:
    """Write the artifact of a run; the logger `modalign.export` reports the steps.

    Args:
        fitted: the run.
        folder: folder of the artifact.
        dtype: type in which vectors are stored; the loss is measured and recorded. They are
            served as float32 for every type.
        index: "hnsw" builds an approximate index, "auto" does so above a million items.
        adapter: train the content adapter, if the data have modalities.
        images: copy the items' pictures into the artifact.
        overwrite: replace an artifact in the folder.

    Raises:
        ConfigError: the model cannot be served.
        ArtifactError: the folder is not empty.
    """
    start = time.perf_counter()
    dataset, seed = fitted.dataset, fitted.seed
    if bad := not_finite(fitted.model):
        got = f"NaN or infinite numbers in {', '.join(bad[:3])}"
        raise ConfigError("finite weights to serve", got, "train the model again")
    log.info("reading the model")
    history, seen = dataset.history.read(), dataset.history.known
    how = scored(fitted.model, history, seed)
    files: dict[str, bytes | Path] = {}
    if how.encoder is not None:
        log.info("writing the encoder")
        files["encoder.onnx"] = encoder = onnx_bytes(how.encoder, how.kind)
        if how.kind == "encoder":
            how = replace(how, loss=encoder_loss(fitted.model, encoder, history, seed))
    columns, left = columns_of(dataset.item_table)
    if "image" in columns:
        pictures = pictures_of(dataset.item_table, dataset.folder) if images else {}
        columns["image"] = picture_column(columns["image"], pictures)
        files |= pictures
    artifact = Artifact(
        manifest=_manifest(fitted, how, dtype),
        user_ids=Ids.pack(dataset.users, "user"),
        item_ids=Ids.pack(dataset.items, "item"),
        seen=csr_of(seen),
        counts=np.bincount(dataset.train.items, minlength=dataset.n_items).astype(np.int64),
        users=how.users,
        items=how.items,
        history=csr_of(history) if how.kind != "factors" or how.encoder is not None else None,
        neighbours=how.neighbours,
        columns=columns,
    )
    artifact = _with_loss(artifact, seen, seed)
    if how.kind == "factors":
        log.info("fitting the fold-in of new users")
        artifact = _with_fold_in(artifact, dataset, history, files, seed)
    modalities = dataset.view().modalities
    if modalities:
        log.info("training the adapter for new items" if adapter else "reducing features")
        artifact = _with_content(artifact, dataset, history, adapter, seed)
    with tempfile.TemporaryDirectory() as scratch:
        if how.kind == "factors" and _wants_index(index, dataset.n_items):
            log.info("building the index")
            path = Path(scratch) / "index.faiss"
            artifact = _with_index(artifact, seen, path, seed)
            files["index.faiss"] = path
        log.info("writing")
        out = write_artifact(folder, artifact, files, overwrite)
    return Exported(out, read_manifest(out), left, time.perf_counter() - start)


def _manifest(fitted: FittedModel, how: ScoringParts, dtype: Dtype) -> Manifest:
    dataset, results = fitted.dataset, fitted.results
    metrics = {name: dict(results[name]) for name in ("valid", "test") if results.get(name)}
    return Manifest(
        kind=how.kind,
        model=fitted.spec.name,
        n_users=dataset.n_users,
        n_items=dataset.n_items,
        width=0 if how.items is None else how.items.shape[1],
        dtype=dtype,
        seed=fitted.seed,
        config=fitted.config.model_dump(mode="json"),
        metrics=metrics,
        mask=str(results.get("mask", "strict")),
        fingerprints={
            "data": dataset.fingerprint,
            "users": dataset.users.fingerprint,
            "items": dataset.items.fingerprint,
        },
        dataset=dataset.name,
        synthetic=bool(dataset.info.get("synthetic", False)),
        loss={} if how.loss is None else how.loss,
        modalities={
            name: {"width": m.dim, "provenance": _plain(m.provenance)}
            for name, m in dataset.view().modalities.items()
        },
        segments=how.segments,
    )


def _plain(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance without lists of words."""
    kinds = str | int | float | bool | None
    return {key: value for key, value in provenance.items() if isinstance(value, kinds)}


def _sample(seen: sp.csr_array, seed: int) -> np.ndarray:
    having = np.flatnonzero(np.diff(seen.indptr))
    rng = seeds.numpy_generator(seed, "export", "sample")
    return np.sort(rng.permutation(having)[:SAMPLE])


def _with_loss(artifact: Artifact, seen: sp.csr_array, seed: int) -> Artifact:
    """Vectors as they are read from disk, and the loss of storing them."""
    if artifact.users is None or artifact.items is None:
        if artifact.items is None:
            return artifact
        return replace(artifact, items=_back(artifact.items, artifact.manifest.dtype))
    users, items = (_back(v, artifact.manifest.dtype) for v in (artifact.users, artifact.items))
    rows = _sample(seen, seed)
    some = sp.csr_array(seen[rows])
    lists = best_lists(artifact.users[rows], artifact.items, some, K)
    kept = best_lists(users[rows], items, some, K)
    few = rows[:100]
    true = artifact.users[few] @ artifact.items.T
    gone = np.abs(users[few] @ items.T - true)
    spread = float(true.std()) or 1.0
    loss = {
        f"overlap@{K}": overlap(lists, kept),
        "score_error": float(gone.mean()) if gone.size else 0.0,
        "score_error_in_deviations": float(gone.mean()) / spread if gone.size else 0.0,
        "users": len(rows),
    }
    return replace(
        artifact,
        users=users,
        items=items,
        manifest=replace(artifact.manifest, loss={**artifact.manifest.loss, **loss}),
    )


def _back(vectors: np.ndarray, dtype: Dtype) -> np.ndarray:
    return restored(quantised(vectors, dtype))


def _with_fold_in(
    artifact: Artifact,
    dataset: Dataset,
    history: sp.csr_array,
    files: Mapping[str, bytes | Path],
    seed: int,
) -> Artifact:
    assert artifact.users is not None
    assert artifact.items is not None
    relevant = dataset.valid.csr(dataset.n_users, dataset.n_items)
    known = KnownUsers(artifact.users, artifact.items, history, relevant)
    encoder = files.get("encoder.onnx")
    own = encoder_fold(session(encoder)) if isinstance(encoder, bytes) else None
    rng = seeds.numpy_generator(seed, "export", "fold-in")
    if not history.nnz:
        return artifact
    found = fit_fold_ins(known, rng, own)
    manifest = replace(artifact.manifest, fold_in=found.report)
    return replace(artifact, fold_in=found.matrices, manifest=manifest)


def _with_content(
    artifact: Artifact, dataset: Dataset, history: sp.csr_array, adapter: bool, seed: int
) -> Artifact:
    warm = np.unique(history.indices)
    content = read_content(dataset.view().modalities, warm, seed)
    bases = {name: content.bases[f"shown.{name}"] for name in content.names}
    artifact = replace(artifact, features=content.shown, bases=bases)
    if not adapter or artifact.users is None or artifact.items is None or len(warm) < 2:
        return artifact
    trained = train_adapter(content, artifact.users, artifact.items, history, seed)
    manifest = replace(artifact.manifest, adapter=trained.report)
    return replace(artifact, adapter=trained.matrices, manifest=manifest)


def _wants_index(index: Index, n_items: int) -> bool:
    if index not in ("auto", "exact", "hnsw"):
        raise ConfigError("auto, exact or hnsw as the index", repr(index), "choose one of these")
    return index == "hnsw" or (index == "auto" and n_items > FROM)


def _with_index(artifact: Artifact, seen: sp.csr_array, path: Path, seed: int) -> Artifact:
    assert artifact.users is not None
    assert artifact.items is not None
    graph = Hnsw.build(artifact.items)
    graph.write(path)
    rows = _sample(seen, seed)
    nothing = np.zeros(0, np.int64)
    shape = (len(rows), artifact.n_items)
    none_seen = sp.csr_array((nothing.astype(np.float32), (nothing, nothing)), shape=shape)
    exact = best_lists(artifact.users[rows], artifact.items, none_seen, K)
    found = graph.tune(artifact.users[rows], exact)
    report = {"kind": "hnsw", f"recall@{K}": found, "search": graph.search, "users": len(rows)}
    return replace(artifact, manifest=replace(artifact.manifest, index=report))
