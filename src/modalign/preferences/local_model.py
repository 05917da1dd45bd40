"""A language model in a folder on this machine, run by transformers; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from modalign.core.interfaces import Config
from modalign.core.settings import build
from modalign.encoding.encoders.encoder import versions
from modalign.encoding.encoders.text import loading, weights_identity
from modalign.errors import ConfigError
from modalign.preferences.provider import MAX_TOKENS, ModelAnswer, Refusal


class LocalModelOptions(Config):
    """Options of `LocalTransformers` beside the folder and the device."""

    batch_size: Annotated[int, Field(ge=1)] = 4
    """Prompts in one pass of the network."""
    max_tokens: Annotated[int, Field(ge=1)] = MAX_TOKENS
    """Maximum length of an answer in tokens."""


class LocalTransformers:
    """A causal language model as transformers saves it: `config.json`, weights, tokenizer.

    Decoding is greedy. If the tokenizer has a chat template, the prompt is a user message of
    it. Prompts of similar length share a batch, padded on the left.

    Limits: the composition of a batch changes rounding, and so occasionally a word;

    `batch_size` 1 is exact. A prompt that does not fit into the model's context together with
    its answer is refused.

    Args:
        folder: of the model.
        device: where it runs.
        options: see `LocalModelOptions`.

    Raises:
        ConfigError: the extra `encoders` is missing, the folder holds no such model, or an
            option is unknown or out of its bounds.
    """

    def __init__(self, folder: str | Path, device: str = "cpu", **options: Any) -> None:
        self.options = build(LocalModelOptions, options, "provider local")
        self.max_tokens = self.options.max_tokens
        where = Path(folder)
        if not (where / "config.json").is_file():
            problem = "has no config.json" if where.is_dir() else "is not a folder"
            expected = "a folder with a causal language model (config.json, weights, tokenizer)"
            fix = "give --model the folder of a model saved with save_pretrained"
            raise ConfigError(expected, f"{where}, which {problem}" if folder else "none", fix)
        self.device = device
        with loading(f"local:{where}"):
            from transformers import AutoModelForCausalLM, AutoTokenizer

            self._tokens = AutoTokenizer.from_pretrained(
                where, local_files_only=True, padding_side="left"
            )
            model: Any = AutoModelForCausalLM.from_pretrained(where, local_files_only=True)
        self._model = model.to(device).eval()
        if self._tokens.pad_token is None:
            self._tokens.pad_token = self._tokens.eos_token
        self._context = getattr(model.config, "max_position_embeddings", None)
        self._weights = weights_identity(str(where), model.config)

    def identity(self) -> dict[str, Any]:
        """Provider, hash of the weights, versions; not the place of the folder."""
        return {
            "provider": "local",
            "version": 1,
            **self._weights,
            "max_tokens": self.max_tokens,
            "versions": versions("transformers"),
        }

    def answers(
        self, prompts: Sequence[str]
    ) -> Generator[tuple[int, ModelAnswer | Refusal], None, None]:
        """Batch by batch, long prompts first."""
        asked = [self._tokens(self._chat(prompt))["input_ids"] for prompt in prompts]
        most = None if self._context is None else self._context - self.max_tokens
        places = sorted(range(len(asked)), key=lambda place: (-len(asked[place]), place))
        fitting = [place for place in places if most is None or len(asked[place]) <= most]
        for place in places[: len(places) - len(fitting)]:
            yield (
                place,
                Refusal(
                    f"{len(asked[place]):,} tokens of the prompt and {self.max_tokens:,} of its "
                    f"answer exceed the model's context of {self._context:,}"
                ),
            )
        for start in range(0, len(fitting), self.options.batch_size):
            batch = fitting[start : start + self.options.batch_size]
            for place, answer in zip(
                batch, self._pass([asked[place] for place in batch]), strict=True
            ):
                yield place, answer

    def _chat(self, prompt: str) -> str:
        if not self._tokens.chat_template:
            return prompt
        message = [{"role": "user", "content": prompt}]
        return str(
            self._tokens.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        )

    def _pass(self, asked: list[list[int]]) -> list[ModelAnswer]:
        inputs = self._tokens.pad({"input_ids": asked}, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            out = self._model.generate(
                **inputs,
                max_new_tokens=self.max_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self._tokens.pad_token_id,
            )
        new = out[:, inputs["input_ids"].shape[1] :]  # (b, t)
        said = self._tokens.batch_decode(new, skip_special_tokens=True)
        counts = (new != self._tokens.pad_token_id).sum(dim=1).tolist()
        return [
            ModelAnswer(text, len(one), count)
            for text, one, count in zip(said, asked, counts, strict=True)
        ]
