"""A language model behind an address that speaks OpenAI's chat completions."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from modalign.errors import ConfigError
from modalign.preferences.asking import MAX_TOKENS
from modalign.preferences.base import Answer, Refusal
from modalign.preferences.cost import about_tokens
from modalign.preferences.pace import Backoff, Pace, retry_after

KEY_VARIABLE = "OPENAI_API_KEY"
PATH = "/chat/completions"
LONGEST_WAIT = 300.0
LARGEST_ANSWER = 4_000_000  # bytes
SHOWN = 200  # characters of a server's words in a message


@dataclass(frozen=True)
class _Again:
    """A failure that may pass."""

    reason: str
    wait: float | None = None
    busy: bool = False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class OpenAICompatible:
    """Any server with `POST BASE_URL/chat/completions`: OpenAI, vLLM, llama.cpp, Ollama, ...

    Temperature 0. Status 408, 429, 5xx, time-outs, broken connections and malformed answers
    are tried again after a pause that doubles and has a random part, or as long as the header
    `Retry-After` says; other refusals of one question are told and do not stop the others. A
    key, model or address that can not be right stops all at once.

    The key is read from the environment and sent in one header, and to no other address: no
    redirect is followed. It stands in no file, no message and no cache; where a server repeats
    it, it is blotted out.

    Limits: time-outs hold for a silence of the server, not for a whole answer; temperature 0
    does not make every server answer the same twice; an interruption waits for the questions
    under way and loses their answers.

    Args:
        base_url: such as https://api.openai.com/v1 or http://localhost:8000/v1.
        model: its name there.
        key_variable: environment variable with the key; None for a server that wants none.
        max_tokens: of an answer; a model that thinks aloud wants some thousands.
        timeout: seconds of silence.
        retries: so often is a question tried again.
        concurrency: questions under way at a time.
        requests_per_minute: None for no limit.
        tokens_per_minute: of prompts (roughly) and answers (at most); None for no limit.
        extra: further fields of the request; None for a value takes a field out.
        now: clock in seconds, for tests.
        sleep: waits for some seconds, for tests.

    Raises:
        ConfigError: a base URL that is none or that carries a secret, no key, a number out of
            its bounds.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_variable: str | None = KEY_VARIABLE,
        max_tokens: int = MAX_TOKENS,
        timeout: float = 60.0,
        retries: int = 6,
        concurrency: int = 4,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        extra: Mapping[str, Any] | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        if not model:
            raise ConfigError("the name of a model", "none", "give --model NAME")
        for name, value, least in (
            ("max_tokens", max_tokens, 1),
            ("timeout", timeout, 0.001),
            ("retries", retries, 0),
            ("concurrency", concurrency, 1),
        ):
            if value < least:
                raise ConfigError(f"{name} of at least {least}", str(value), "give more")
        self.model, self.max_tokens = model, max_tokens
        self.timeout, self.retries, self.concurrency = timeout, retries, concurrency
        self.extra = dict(extra or {})
        self._key = _key(key_variable)
        self._key_variable = key_variable
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._pace = Pace(requests_per_minute, tokens_per_minute, now, self._sleep)
        self._backoff = Backoff()
        self._answered = False
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __repr__(self) -> str:
        return f"OpenAICompatible({self.base_url!r}, {self.model!r})"

    def identity(self) -> dict[str, Any]:
        """Provider, address, model, options; never the key."""
        return {
            "provider": "openai",
            "version": 1,
            "base_url": self.base_url,
            "model": self.model,
            "max_tokens": self.max_tokens,
            "extra": self.extra,
        }

    def answers(
        self, prompts: Sequence[str]
    ) -> Generator[tuple[int, Answer | Refusal], None, None]:
        """Answers as they come, `concurrency` questions under way at a time.

        Raises:
            ConfigError: the server refuses the key, knows no such model, or is not there.
        """
        self._stop.clear()
        queue = enumerate(prompts)
        waiting: dict[Future[Answer | Refusal], int] = {}
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                for place, prompt in islice(queue, 2 * self.concurrency):
                    waiting[pool.submit(self._ask, prompt)] = place
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for one in done:
                        place = waiting.pop(one)
                        for later, prompt in islice(queue, 1):
                            waiting[pool.submit(self._ask, prompt)] = later
                        yield place, one.result()
            finally:
                self._stop.set()  # ends pauses, and what has not gone out yet

    def _ask(self, prompt: str) -> Answer | Refusal:
        """One question until it is answered, refused, or tried often enough."""
        tokens = about_tokens(prompt) + self.max_tokens
        reason = "stopped"
        for attempt in range(self.retries + 1):
            if not self._pace.wait(tokens, self._stop.is_set):
                return Refusal("stopped before it was asked")
            got = self._once(prompt)
            if not isinstance(got, _Again):
                return got
            reason = got.reason
            pause = max(self._backoff.seconds(attempt), got.wait or 0.0)
            if pause > LONGEST_WAIT:
                return Refusal(f"{reason}; the server asks to wait {pause:,.0f} s")
            if attempt == self.retries:
                break
            if got.busy:
                self._pace.pause(pause)
            self._sleep(pause)
        return Refusal(f"{reason}, {self.retries + 1} times")

    def _once(self, prompt: str) -> Answer | Refusal | _Again:
        try:
            with self._opener.open(self._request(prompt), timeout=self.timeout) as response:
                body = response.read(LARGEST_ANSWER)
        except urllib.error.HTTPError as error:
            with error:
                return self._status(error)
        except (OSError, http.client.HTTPException) as error:
            return self._broken(error)
        self._answered = True
        return self._read(body)

    def _request(self, prompt: str) -> urllib.request.Request:
        fields = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            **self.extra,
        }
        body = json.dumps({key: value for key, value in fields.items() if value is not None})
        headers = {"Content-Type": "application/json", "User-Agent": "modalign"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        return urllib.request.Request(self.base_url + PATH, body.encode(), headers, method="POST")

    def _status(self, error: urllib.error.HTTPError) -> Refusal | _Again:
        """What a status other than 200 means.

        Raises:
            ConfigError: no question can be answered under it.
        """
        said = f"HTTP {error.code}: {self._said(error)}"
        if error.code in (408, 429) or error.code >= 500:
            asked = retry_after(error.headers.get("Retry-After"))
            return _Again(said, asked, busy=error.code in (429, 503))
        if error.code in (401, 403):
            raise ConfigError(
                f"a key that {self.base_url} accepts, in the environment variable "
                f"{self._key_variable}",
                said,
                "export a valid key, or choose another variable with --key-variable",
            )
        if error.code == 404 or 300 <= error.code < 400:
            raise ConfigError(
                f"chat completions of a model {self.model!r} at {self.base_url}{PATH}",
                said,
                "check --model and --base-url, which usually ends in /v1",
            )
        return Refusal(said)

    def _broken(self, error: Exception) -> _Again:
        """What a failed connection means.

        Raises:
            ConfigError: no question can be asked that way.
        """
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            return _Again(f"no answer within {self.timeout:g} s")
        said = self._blot(str(cause) or type(cause).__name__)
        never = isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError)
        # A server that has answered before is being restarted; one that never has is not there.
        if never or (isinstance(cause, ConnectionRefusedError) and not self._answered):
            raise ConfigError(
                f"a server at {self.base_url}", said, "check --base-url, and that it is running"
            )
        return _Again(f"the connection broke: {said}")

    def _read(self, body: bytes) -> Answer | _Again:
        try:
            answer = json.loads(self._blot(body.decode("utf-8")))
            text = answer["choices"][0]["message"]["content"]
            usage = answer.get("usage") or {}
            if text is None:
                text = ""
            if not isinstance(text, str):
                raise TypeError("the content is no text")
            counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return _Again(f"an answer that is no chat completion ({type(error).__name__})")
        tokens_in, tokens_out = (one if isinstance(one, int) else None for one in counts)
        return Answer(text, tokens_in, tokens_out)

    def _said(self, error: urllib.error.HTTPError) -> str:
        """The server's own words, short and on one line."""
        try:
            body = error.read(LARGEST_ANSWER).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            body = ""
        try:
            said = json.loads(body)["error"]
            said = said["message"] if isinstance(said, dict) else said
        except (ValueError, LookupError, TypeError):
            said = body or error.reason
        return " ".join(self._blot(str(said)).split())[:SHOWN]

    def _blot(self, text: str) -> str:
        return text if self._key is None else text.replace(self._key, "***")


def _checked_url(text: str) -> str:
    """The address without the path of chat completions and without a slash at its end.

    Raises:
        ConfigError: no address, or one that carries a secret.
    """
    fix = "give one such as https://api.openai.com/v1 or http://localhost:8000/v1"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ConfigError("a base URL", str(error), fix) from error
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "a base URL without user, password and query",
            f"one of {parts.hostname} with them",
            "put the key into the environment variable that --key-variable names",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or text != text.strip():
        raise ConfigError("a base URL with http:// or https:// and a host", repr(text), fix)
    return text.rstrip("/").removesuffix(PATH).rstrip("/")


def _key(variable: str | None) -> str | None:
    """The key in an environment variable.

    Raises:
        ConfigError: it is not set, empty, or has characters that no header can carry.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"a key in the environment variable {variable}",
            "no such variable" if variable not in os.environ else "an empty one",
            f"export {variable}=..., or --key-variable none for a server that wants no key",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"a key of plain letters, digits and signs in {variable}",
            "other characters in it",
            f"export {variable} again",
        )
    return key
