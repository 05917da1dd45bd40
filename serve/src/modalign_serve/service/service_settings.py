"""The settings of a service."""

from __future__ import annotations

import functools
import ipaddress
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
        hosts: names by which the service may be addressed (`Host`), besides addresses of numbers
            and local names. Without any, a service with keys or `allow_open` takes all names.
        allow_open: whether other machines may call a service without keys.
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
    hosts: tuple[str, ...] = ()
    allow_open: bool = False
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
        for host in self.hosts:
            plain = re.fullmatch(r"[A-Za-z0-9._-]+", host)
            _check(bool(plain), "a name of a host such as shop.example", host, "--allow-host")
        if self.keys is None and not self.allow_open and not is_local(self.host):
            raise ConfigError(
                "--keys FILE for a service that other machines can reach",
                f"--host {self.host} without keys",
                "make a key with `modalign-serve key NAME --keys FILE`, or give --allow-open if "
                "everyone who can reach this address may use the service",
            )
        self._check_split()

    def answers_for(self, host: str) -> bool:
        """Whether a request may address the service by this `Host`.

        A page of a stranger can make a browser call a local service by the stranger's own name
        (DNS rebinding), but not by an address of numbers or a local name.
        """
        if not self.hosts and (self.keys is not None or self.allow_open):
            return True
        name = host_name(host)
        return name in {one.lower() for one in self.hosts} or is_safe(name)

    def _check_split(self) -> None:
        for name, share in self.split.items():
            _check(
                name in self.artifacts, f"a served model: {', '.join(self.artifacts)}",
                name, "--split",
            )  # fmt: skip
            _check(0 <= share <= 1, "a share from 0 to 1", share, "--split")
        total = sum(self.split.values())
        _check(not self.split or abs(total - 1) < 1e-6, "shares that add up to 1", total, "--split")


def host_name(host: str) -> str:
    """The name in a `Host` header, without the port.

    Example:
        >>> host_name("Shop.example:8080"), host_name("[::1]:80"), host_name("::1")
        ('shop.example', '::1', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return (host if host.count(":") > 1 else host.partition(":")[0]).rstrip(".").lower()


@functools.lru_cache(64)
def is_safe(name: str) -> bool:
    """Whether a name cannot be given to this machine by a stranger: local, or an address."""
    return is_local(name) or is_address(name)


def is_address(name: str) -> bool:
    """Whether a name is an address of numbers."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_local(name: str) -> bool:
    """Whether a name means this machine only.

    Example:
        >>> is_local("127.0.0.1"), is_local("shop.localhost"), is_local("0.0.0.0")
        (True, True, False)
    """
    if is_address(name):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost" or name.endswith(".localhost")


def _check(valid: bool, expected: str, got: object, option: str) -> None:
    if not valid:
        raise ConfigError(expected, repr(got), f"change {option}")
