"""Encoders in a process of their own: a line of JSON in, a line of JSON out.

    python -m modalign.encoding.standing

The server asks it for the features of new items, so that the serving process itself needs
neither torch nor a model of texts or pictures. A request names the encoder of each modality,

    {"wanted": {"text": {"encoder": "minilm", "kind": "text"}}, "text": "A rucksack"}

with a picture as `image` in base64. The response holds `features` by modality, or `error` with
`expected`, `got`, `fix` and whether the `input` is its cause. The process ends with its input.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
from typing import Any, TextIO

from modalign.encoding.encoders.encoder import Encoder, FittedEncoder, UnreadableInput, make_encoder
from modalign.encoding.picture_process import decoded_apart
from modalign.errors import ConfigError, DataError, InputError


class Standing:
    """Encoders that are built on first use and kept."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Encoder] = {}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Features by modality, or the error as plain data.

        Example:
            >>> Standing().answer({"wanted": {"image": {"encoder": None, "kind": "image"}},
            ...                    "image": "bm8="})["error"]["got"]
            'not a picture of PNG, JPEG or WebP'
        """
        try:
            return {"features": self._features(question)}
        except InputError as error:
            facts = {"expected": error.expected, "got": error.got, "fix": error.fix}
            return {"error": {**facts, "input": isinstance(error, DataError)}}

    def _features(self, question: dict[str, Any]) -> dict[str, list[float]]:
        raw = {kind: _read(kind, question[kind]) for kind in ("text", "image") if kind in question}
        found = {}
        for modality, how in question["wanted"].items():
            kind = how["kind"]
            if kind not in raw:
                got = f"an item without one; the model reads {modality!r}"
                fix = "send the features of this modality instead"
                raise DataError(f"a {kind} that can be encoded here", got, fix)
            encoder = self._encoder(how["encoder"], kind)
            try:
                row = encoder.encode([encoder.read(raw[kind])])[0]
            except UnreadableInput as error:
                raise DataError(f"a readable {kind}", str(error), f"send another {kind}") from error
            found[modality] = [float(value) for value in row]
        return found

    def _encoder(self, name: str, kind: Any) -> Encoder:
        if (name, kind) not in self._made:
            made = make_encoder(name, kind)
            if isinstance(made, FittedEncoder):
                got = f"{name!r}, which is fitted on a whole catalogue"
                fix = "send the features of the item, or train with another encoder"
                raise ConfigError("an encoder that can encode one item alone", got, fix)
            self._made[name, kind] = made
        return self._made[name, kind]


def _read(kind: str, sent: str) -> Any:
    if kind == "text":
        return sent
    try:
        plain = base64.b64decode(sent, validate=True)
    except binascii.Error as error:
        raise DataError("a picture in base64", str(error), "encode its bytes in base64") from error
    return decoded_apart(plain)


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer each line of `questions` with one line of `answers`."""
    standing = Standing()
    for line in questions:
        answers.write(json.dumps(standing.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    # What libraries print goes to standard error, since it would break the answers.
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, own)
