"""A language model in a folder of this machine, through transformers; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import torch

from modalign.encoding.encoders.base import missing_extra, versions
from modalign.encoding.encoders.text import loading, weights_identity
from modalign.errors import ConfigError
from modalign.preferences.asking import MAX_TOKENS
from modalign.preferences.base import Answer, Refusal


class LocalTransformers:
    """A causal language model as transformers saves it: `config.json`, weights, tokenizer.

    The most likely token is taken each time. Where the tokenizer has a chat template the prompt
    is a user's message of it. Prompts of like length share a batch, padded on the left.

    Limits: what shares a batch changes rounding, and so now and then a word; `batch_size` 1 is
    exact. A prompt that with its answer is longer than the model's context is refused.

    Args:
        folder: of the model.
        device: where it runs.
        batch_size: prompts in one pass.
        max_tokens: of an answer.

    Raises:
        ConfigError: the extra `encoders` is missing, or the folder holds no such model.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "cpu",
        batch_size: int = 4,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_tokens", max_tokens)):
            if value < 1:
                raise ConfigError(f"{name} of 1 or more", str(value), "give more")
        where = Path(folder)
        if not (where / "config.json").is_file():
            raise ConfigError(
                "a folder with a causal language model (config.json, weights, tokenizer)",
                f"{where}, which {'has no config.json' if where.is_dir() else 'is no folder'}",
                "give --model the folder of a model saved with save_pretrained",
            )
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise missing_extra("transformers") from error
        self.folder, self.device = where, device
        self.batch_size, self.max_tokens = batch_size, max_tokens
        with loading(f"local:{where}"):
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
        """Provider, hash of the weights, versions; not where the folder is."""
        return {
            "provider": "local",
            "version": 1,
            **self._weights,
            "max_tokens": self.max_tokens,
            "versions": versions("transformers"),
        }

    def answers(
        self, prompts: Sequence[str]
    ) -> Generator[tuple[int, Answer | Refusal], None, None]:
        """Batch by batch, long prompts first."""
        asked = [self._tokens(self._chat(prompt))["input_ids"] for prompt in prompts]
        most = None if self._context is None else self._context - self.max_tokens
        places = sorted(range(len(asked)), key=lambda place: (-len(asked[place]), place))
        fitting = [place for place in places if most is None or len(asked[place]) <= most]
        for place in places[: len(places) - len(fitting)]:
            yield (
                place,
                Refusal(
                    f"{len(asked[place]):,} tokens of a prompt, {self.max_tokens:,} of its answer: "
                    f"more than the model's context of {self._context:,}"
                ),
            )
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start : start + self.batch_size]
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

    def _pass(self, asked: list[list[int]]) -> list[Answer]:
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
            Answer(text, len(one), count)
            for text, one, count in zip(said, asked, counts, strict=True)
        ]
