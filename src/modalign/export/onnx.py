"""Encoders of histories as ONNX."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from modalign.errors import ConfigError
from modalign_serve.artifact.manifest import Kind


def onnx_bytes(encoder: nn.Module, kind: Kind) -> bytes:
    """An encoder as an ONNX model with the input `items`, int64, (n,), for any n of at least 1."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        got = f"no package {error.name}"
        fix = "run pip install 'modalign[export]'"
        raise ConfigError("onnx and onnxscript, to export an encoder", got, fix) from error
    example = torch.tensor([0, 1, 0])
    output = "scores" if kind == "encoder" else "vector"
    n = torch.export.Dim("n", min=1)
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The exporter warns of its own deprecations, which do not concern the caller.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                encoder,
                (example,),
                input_names=["items"],
                output_names=[output],
                dynamic_shapes=({0: n},),
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "encoder.onnx"
        program.save(path, include_initializers=True)
        return path.read_bytes()
