"""The settings of a service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modalign_serve.errors import ConfigError
from modalign_serve.service.logs import LEVELS

MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class ServiceSettings:
    """The settings of a service.

    Attributes:
        artifacts: folder of each model by its name; the first is the default model.
        feedback: where feedback goes, see `modalign_serve.stores.stores.open_store`.
        keys: file of API keys; None: any caller may ask, and none may administer.
        split: share of the traffic of `/v1/recommend` by model; empty: all to the first model.
        rate: maximum requests per second for each key (or address, without keys); 0: no limit.
        max_body: maximum size of a request's body in bytes.
        cors: origins of other sites whose pages may call.
        timeout: maximum seconds for a request's head and body to arrive.
        drain: seconds between SIGTERM and the end of listening, for a load balancer to notice.
        log: minimum level that is written.
        encoder: command that encodes texts and pictures of new items, see
            `modalign_serve.service.encoder_process`; None: new items need features.
        page: serve the web page at `/`.

    Raises:
        ConfigError: a value is out of its bounds.
    """

    artifacts: Mapping[str, Path]
    feedback: str = "feedback.sqlite"
    host: str = "127.0.0.1"
    port: int = 8080
    keys: Path | None = None
    split: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.0
    max_body: int = 2_000_000
    cors: tuple[str, ...] = ()
    timeout: float = 10.0
    drain: float = 0.0
    log: str = "info"
    encoder: tuple[str, ...] | None = None
    page: bool = True

    def __post_init__(self) -> None:
        if not self.artifacts:
            raise ConfigError("at least one artifact to serve", "none", "name its folder")
        for name in self.artifacts:
            if not re.fullmatch(MODEL_NAME, name):
                expected = "a model's name of up to 64 letters, digits, dots and dashes"
                raise ConfigError(expected, repr(name), "name it: NAME=FOLDER")
        _check(0 <= self.port < 65536, "a port from 0 to 65535", self.port, "--port")
        _check(self.rate >= 0, "a rate of 0 or more", self.rate, "--rate")
        _check(self.max_body >= 1000, "a body of at least 1,000 bytes", self.max_body, "--max-body")
        _check(self.timeout > 0, "a timeout above 0 seconds", self.timeout, "--timeout")
        _check(self.drain >= 0, "0 seconds or more", self.drain, "--drain")
        _check(self.log in LEVELS, f"one of {', '.join(LEVELS)}", self.log, "--log")
        for origin in self.cors:
            valid = re.fullmatch(r"https?://[^/\s*]+", origin)
            _check(bool(valid), "an origin such as https://shop.example", origin, "--cors")
        self._check_split()

    def _check_split(self) -> None:
        for name, share in self.split.items():
            _check(
                name in self.artifacts, f"a served model: {', '.join(self.artifacts)}",
                name, "--split",
            )  # fmt: skip
            _check(0 <= share <= 1, "a share from 0 to 1", share, "--split")
        total = sum(self.split.values())
        _check(not self.split or abs(total - 1) < 1e-6, "shares that add up to 1", total, "--split")


def _check(valid: bool, expected: str, got: object, option: str) -> None:
    if not valid:
        raise ConfigError(expected, repr(got), f"change {option}")
