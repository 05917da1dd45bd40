"""Encoders of sounds: statistics of their spectra, and any transformers model of sounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from modalign.core.interfaces import Config
from modalign.core.settings import build
from modalign.encoding.encoders.decoding import sound
from modalign.encoding.encoders.encoder import (
    InputKind,
    UnreadableInput,
    missing_extra,
    versions,
)
from modalign.encoding.encoders.text import loading, weights_identity
from modalign.errors import ConfigError

RATE = 22_050
"""Samples per second of `spectra`."""
FRAME, HOP = 2048, 512
"""Samples in a window of `spectra`, and from one to the next."""
MELS, CEPSTRA = 64, 26
SILENT = 1e-5
"""Largest amplitude of a sound that counts as silence."""


class SpectraOptions(Config):
    """Options of `spectra`."""

    seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """How much of a sound is read, from its start."""


class TransformerAudioOptions(Config):
    """Options of the transformers models of sounds."""

    seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """How much of a sound is read, from its start."""
    window: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Seconds in one pass of the network; the vector of a sound is the mean over its windows."""


class SpectraEncoder:
    """Statistics of a sound's spectrum over windows of 93 ms: 256 numbers, no download.

    Mean and standard deviation over the windows of 64 log-mel bands (128 numbers); of 26 cepstral
    coefficients mean, deviation, and the deviation of their change (78); of the spectral contrast
    in 7 bands (14) and of the 12 pitch classes (24) mean and deviation; and of centroid,
    bandwidth, roll-off, flatness, zero crossings and loudness (12). Levels are relative to the
    loudest window, so that a louder copy has the same numbers, and each group is shifted and
    scaled by constants, so that timbre counts more than pitch.

    Source: Davis and Mermelstein, Comparison of parametric representations, 1980; McFee et al.,
    librosa, SciPy 2015.

    Limits: it tells timbre, pitch and loudness over time, not words or melodies. About 100 times
    as fast as the sound plays, on one core.

    Args:
        name: as on the command line.
        device: not used; it runs on the CPU.
        options: see `SpectraOptions`.

    Raises:
        ConfigError: the extra `media` is missing, or an option is unknown or out of bounds.
    """

    kind: InputKind = "audio"
    batch_size = 64
    dim = 2 * MELS + 3 * CEPSTRA + 14 + 24 + 12

    def __init__(self, name: str = "spectra", device: str = "cpu", **options: Any) -> None:
        self.name, self.device = name, device
        self.options = build(SpectraOptions, options, f"encoder {name}")
        try:
            import librosa
        except ImportError as error:
            raise missing_extra("librosa", "media") from error
        self._librosa: Any = librosa

    def provenance(self) -> dict[str, Any]:
        """Encoder, options, versions."""
        return {
            "encoder": self.name,
            "options": self.options.model_dump(),
            "versions": versions("librosa", "av"),
        }

    def read(self, raw: Any) -> np.ndarray:
        """The numbers of a sound, from its path or its samples at `RATE`, float32, (256,).

        Raises:
            UnreadableInput: there is no file, no sound in it, or it is broken or silent.
        """
        if isinstance(raw, np.ndarray) and raw.shape == (self.dim,):
            return raw
        wave = raw if isinstance(raw, np.ndarray) else sound(raw, RATE, self.options.seconds)
        loudest = float(np.abs(wave).max(initial=0.0))
        if loudest < SILENT:
            raise UnreadableInput("nothing but silence")
        wave = wave / loudest
        return self._numbers(np.pad(wave, (0, max(0, FRAME - len(wave)))))

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Rows of sounds (paths, samples or read ones), float32, shape (len(batch), 256)."""
        return np.stack([self.read(raw) for raw in batch]).astype(np.float32)

    def _numbers(self, wave: np.ndarray) -> np.ndarray:
        of = self._librosa.feature
        sizes = np.abs(self._librosa.stft(wave, n_fft=FRAME, hop_length=HOP))
        power = sizes**2
        mel = self._librosa.power_to_db(
            of.melspectrogram(S=power, sr=RATE, n_mels=MELS), ref=np.max, top_db=60.0
        )
        cepstra = of.mfcc(S=mel, n_mfcc=CEPSTRA)
        # The first one is eight times the mean level in decibels.
        cepstra[0] = cepstra[0] / 8 + 30
        change = np.diff(cepstra, axis=1, prepend=cepstra[:, :1])
        contrast = of.spectral_contrast(S=sizes, sr=RATE)
        pitches = of.chroma_stft(S=power, sr=RATE, tuning=0.0)
        loud = of.rms(S=sizes, frame_length=FRAME)
        others = np.concatenate([
            np.log2(of.spectral_centroid(S=sizes, sr=RATE) / 1000 + 0.01),
            np.log2(of.spectral_bandwidth(S=sizes, sr=RATE) / 1000 + 0.01),
            np.log2(of.spectral_rolloff(S=sizes, sr=RATE) / 1000 + 0.01),
            np.log10(of.spectral_flatness(S=sizes) + 1e-6) / 2,
            of.zero_crossing_rate(wave, frame_length=FRAME, hop_length=HOP) * 4,
            self._librosa.amplitude_to_db(loud, ref=np.max, top_db=80.0) / 20,
        ])  # fmt: skip
        level, spread = _mean_and_deviation((mel + 30.0) / 100.0)
        shape, wobble = _mean_and_deviation(cepstra / 33.0)
        parts = [
            level,
            5.0 * spread,
            shape,
            5.0 * wobble,
            (change / 4.0).std(axis=1),
            *_mean_and_deviation((contrast - 20.0) / 6.0),
            *_mean_and_deviation((pitches - 0.4) * 0.8),
            *_mean_and_deviation(1.5 * others),
        ]
        return np.concatenate(parts).astype(np.float32)


def _mean_and_deviation(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows.mean(axis=1), rows.std(axis=1)


class _OfWaves:
    """What neural encoders of sounds share: reading, windows, and their mean."""

    kind: InputKind = "audio"
    batch_size = 8
    rate: int
    options: TransformerAudioOptions

    def read(self, raw: Any) -> np.ndarray:
        """Samples of a sound at the model's rate, from its path; samples stay as they are.

        Raises:
            UnreadableInput: there is no file, no sound in it, or it is broken.
        """
        if isinstance(raw, np.ndarray):
            return raw
        return sound(raw, self.rate, self.options.seconds)

    def _windows(self, wave: np.ndarray) -> list[np.ndarray]:
        """Parts of `window` seconds; a short last one is left out, unless it is the only one."""
        size = int(self.options.window * self.rate)
        parts = [wave[start : start + size] for start in range(0, len(wave), size)]
        if len(parts) > 1 and len(parts[-1]) < size // 2:
            parts.pop()
        shortest = self.rate // 10  # networks with strides need some samples
        return [np.pad(part, (0, max(0, shortest - len(part)))) for part in parts]


class TransformerAudioEncoder(_OfWaves):
    """Any transformers model of sounds, `hf:NAME`, with its own preprocessing.

    A model with features of sounds of its own (CLAP) gives these; of another one (wav2vec2, HuBERT,
    AST, the encoder of Whisper) the last hidden states are averaged over time.

    Args:
        name: `hf:` and a model's name or folder.
        device: where it runs.
        options: see `TransformerAudioOptions`.

    Raises:
        ConfigError: an extra is missing, or the model cannot be loaded.
    """

    def __init__(self, name: str, device: str = "cpu", **options: Any) -> None:
        self.name, self.device = name, device
        self.options = build(TransformerAudioOptions, options, f"encoder {name}")
        self._folder = name.removeprefix("hf:")
        with loading(name):
            from transformers import AutoFeatureExtractor, AutoModel

            extractors: Any = AutoFeatureExtractor
            self._extractor = extractors.from_pretrained(self._folder)
            self._model: Any = AutoModel.from_pretrained(self._folder).eval().to(device)
        self.rate = int(self._extractor.sampling_rate)
        self.dim = self.encode([np.zeros(self.rate, np.float32)]).shape[1]

    def provenance(self) -> dict[str, Any]:
        """Encoder, model, its revision or the hash of its weights, options, versions."""
        return {
            "encoder": self.name,
            **weights_identity(self._folder, self._model.config),
            "options": self.options.model_dump(),
            "versions": versions("transformers", "av"),
        }

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Rows of sounds (paths or samples), float32, shape (len(batch), dim)."""
        # One window at a time: padding would let a row depend on its neighbours.
        return np.stack(
            [
                np.mean([self._pass(part) for part in self._windows(self.read(raw))], axis=0)
                for raw in batch
            ]
        ).astype(np.float32)

    def _pass(self, part: np.ndarray) -> np.ndarray:
        inputs = self._extractor(part, sampling_rate=self.rate, return_tensors="pt")
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        with torch.inference_mode():
            own = getattr(self._model, "get_audio_features", None)
            if own is not None:
                found = own(**inputs)
                vector = found if isinstance(found, torch.Tensor) else found.pooler_output
                return np.asarray(vector[0].float().cpu())
            model = self._model
            if getattr(model.config, "is_encoder_decoder", False):
                model = model.get_encoder()
            hidden = model(**inputs).last_hidden_state
        return np.asarray(hidden[0].mean(dim=0).float().cpu())


class SentenceAudioEncoder(_OfWaves):
    """A sentence-transformers model that reads sounds, `st:NAME`.

    Args:
        name: `st:` and a model's name or folder.
        device: where it runs.
        options: see `TransformerAudioOptions`.

    Raises:
        ConfigError: an extra is missing, or the model cannot be loaded or reads no sounds.
    """

    def __init__(self, name: str, device: str = "cpu", **options: Any) -> None:
        self.name, self.device = name, device
        self.options = build(TransformerAudioOptions, options, f"encoder {name}")
        self._folder = name.removeprefix("st:")
        with loading(name):
            from sentence_transformers import SentenceTransformer

            self._model: Any = SentenceTransformer(
                self._folder, device=device, local_files_only=Path(self._folder).is_dir()
            )
        reads = [str(one) for one in getattr(self._model, "modalities", ["text"])]
        if "audio" not in reads:
            got = f"{name!r}, which reads {', '.join(reads)}"
            raise ConfigError("a model that reads sounds", got, "choose another one, or use hf:")
        processor: Any = self._model[0].processor
        extractor: Any = getattr(processor, "feature_extractor", processor)
        self.rate = int(extractor.sampling_rate)
        self.dim = self.encode([np.zeros(self.rate, np.float32)]).shape[1]

    def provenance(self) -> dict[str, Any]:
        """Encoder, model, its revision or the hash of its weights, options, versions."""
        config = getattr(self._model[0], "config", None)
        return {
            "encoder": self.name,
            **weights_identity(self._folder, config),
            "options": self.options.model_dump(),
            "versions": versions("sentence-transformers", "transformers", "av"),
        }

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Rows of sounds (paths or samples), float32, shape (len(batch), dim)."""
        rows = []
        for raw in batch:
            parts = self._windows(self.read(raw))
            sounds = [{"array": part, "sampling_rate": self.rate} for part in parts]
            vectors = self._model.encode(sounds, batch_size=1, show_progress_bar=False)
            rows.append(np.mean(vectors, axis=0))
        return np.stack(rows).astype(np.float32)
