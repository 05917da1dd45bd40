"""A language model behind an HTTP address that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Annotated, Any

import httpx
from pydantic import Field
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
    wait_random_exponential,
)

from modalign.core.interfaces import Config
from modalign.core.settings import build
from modalign.errors import ConfigError
from modalign.preferences.pace import Pace, retry_after
from modalign.preferences.pricing import about_tokens
from modalign.preferences.provider import MAX_TOKENS, ModelAnswer, Refusal

PATH = "/chat/completions"
# Before attempt n + 1: between a half and the whole of min(0.5 * 2^(n - 1), 60) seconds.
BACKOFF = wait_exponential(0.25, max=30) + wait_random_exponential(0.25, max=30)
LONGEST_WAIT = 300.0
"""Seconds of `Retry-After` above which a question is given up."""
LONGEST_ANSWER = 10
"""Time limit of a whole answer, in units of `timeout`."""
LARGEST_ANSWER = 4_000_000
"""Bytes of an answer that are read."""
SHOWN = 200
"""Characters of a server's own words in a message."""


class EndpointOptions(Config):
    """Options of `OpenAICompatible` beside the address and the model."""

    key_variable: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; None or "none" for a server without keys."""
    max_tokens: Annotated[int, Field(ge=1)] = MAX_TOKENS
    """Maximum length of an answer in tokens; reasoning models need some thousands."""
    timeout: Annotated[float, Field(ge=0.001)] = 60.0
    """Seconds without a byte from the server after which a request fails."""
    retries: Annotated[int, Field(ge=0)] = 6
    """How often a failed request is repeated."""
    concurrency: Annotated[int, Field(ge=1)] = 4
    """Maximum number of requests at a time."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of requests in any 60 seconds; None for no limit."""
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of tokens (prompts estimated, answers at their maximum) in any 60 seconds;
    None for no limit."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request; the value None removes a field."""


class _Transient(Exception):
    """A failure that may pass."""

    def __init__(self, reason: str, pause: float = 0.0, busy: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.busy = pause, busy


class _Stopped(Exception):
    """No answer is wanted any more."""


class OpenAICompatible:
    """Any server with `POST BASE_URL/chat/completions`: OpenAI, vLLM, llama.cpp, Ollama, ...

    The temperature is 0. Status 408, 429, 5xx, time-outs, broken connections and malformed
    answers are retried, after a pause that doubles and has a random part, or after as long as
    the header `Retry-After` says. Any other refusal of a question is its result and does not
    stop the other questions. A wrong key, model or address stops all of them at once.

    The key is read from the environment and sent in one header to this address only: redirects
    are not followed. It is in no file, message or cache; if a server echoes it, it is redacted.

    Limits: a whole answer may take ten times `timeout` and 4 MB. Temperature 0 does not make
    every server answer the same twice. An interruption waits for the requests under way and
    loses their answers.

    Args:
        base_url: such as https://api.openai.com/v1 or http://localhost:8000/v1.
        model: its name at that address.
        now: clock in seconds, for tests.
        sleep: waits for a number of seconds, for tests.
        options: see `EndpointOptions`.

    Raises:
        ConfigError: the base URL is not valid or carries a secret, there is no key, or an
            option is unknown or out of its bounds.
    """

    def __init__(
        self,
        base_url: str = "",
        model: str = "",
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        **options: Any,
    ) -> None:
        self.options = build(EndpointOptions, options, "provider openai")
        self.base_url, self.model = _checked_url(base_url), model
        if not model:
            raise ConfigError("the name of a model at that address", "none", "give --model NAME")
        self.max_tokens = self.options.max_tokens
        self._key = _key(self.options.key_variable)
        self._stop = threading.Event()
        pause: Callable[[float], Any] = sleep or self._stop.wait
        limits = self.options.requests_per_minute, self.options.tokens_per_minute
        self._pace = Pace(*limits, now, pause)
        self._retrying = Retrying(
            sleep=pause,
            stop=stop_after_attempt(self.options.retries + 1) | stop_when_event_set(self._stop),
            wait=self._wait,
            retry=retry_if_exception_type(_Transient),
            reraise=True,
        )
        self._answered = False

    def identity(self) -> dict[str, Any]:
        """Provider, address, model, options; never the key."""
        return {
            "provider": "openai",
            "version": 1,
            "base_url": self.base_url,
            "model": self.model,
            "max_tokens": self.max_tokens,
            "extra": self.options.extra,
        }

    def answers(
        self, prompts: Sequence[str]
    ) -> Generator[tuple[int, ModelAnswer | Refusal], None, None]:
        """Answers as they arrive, with at most `concurrency` requests at a time.

        Raises:
            ConfigError: the server refuses the key, does not have the model, or is not there.
        """
        self._stop.clear()
        queue = enumerate(prompts)
        waiting: dict[Future[ModelAnswer | Refusal], int] = {}
        concurrency = self.options.concurrency
        with self._client() as client, ThreadPoolExecutor(concurrency) as pool:
            try:
                for place, prompt in islice(queue, 2 * concurrency):
                    waiting[pool.submit(self._ask, client, prompt)] = place
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for one in done:
                        place = waiting.pop(one)
                        for later, prompt in islice(queue, 1):
                            waiting[pool.submit(self._ask, client, prompt)] = later
                        yield place, one.result()
            finally:
                self._stop.set()  # ends pauses, and what has not been sent yet

    def _client(self) -> httpx.Client:
        """Connections for one run, with the proxy that the environment names for this address."""
        url = httpx.URL(self.base_url)
        # httpx would also read ALL_PROXY, and fail on a SOCKS proxy even for excepted hosts.
        excepted = urllib.request.proxy_bypass(url.netloc.decode())
        proxy = None if excepted else urllib.request.getproxies().get(url.scheme)
        if proxy is not None and "://" not in proxy:
            proxy = f"http://{proxy}"
        headers = {"User-Agent": "modalign", "Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            return httpx.Client(
                headers=headers,
                timeout=self.options.timeout,
                limits=httpx.Limits(max_connections=self.options.concurrency),
                verify=ssl.create_default_context(),  # the certificates of this machine
                proxy=proxy,
                trust_env=False,
            )
        except (ImportError, ValueError) as error:
            got = str(error).partition(". ")[0]
            fix = f"name another proxy, or add {url.host} to NO_PROXY"
            raise ConfigError(f"an HTTP proxy in {url.scheme.upper()}_PROXY", got, fix) from error

    def _ask(self, client: httpx.Client, prompt: str) -> ModelAnswer | Refusal:
        """One question until it is answered, refused, or out of retries."""
        try:
            return self._retrying(self._once, client, prompt)
        except _Transient as error:
            attempts = self.options.retries + 1
            return Refusal(f"{error} ({attempts} attempt{'s' * (attempts != 1)})")
        except _Stopped:
            return Refusal("stopped before it was asked")

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt; an overloaded server gets no other request in them."""
        error = state.outcome and state.outcome.exception()
        if not isinstance(error, _Transient):
            return 0.0
        seconds = max(BACKOFF(state), error.pause)
        if error.busy:
            self._pace.pause(seconds)
        return seconds

    def _once(self, client: httpx.Client, prompt: str) -> ModelAnswer | Refusal:
        if not self._pace.wait(about_tokens(prompt) + self.max_tokens, self._stop.is_set):
            raise _Stopped
        fields = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            **self.options.extra,
        }
        sent = {key: value for key, value in fields.items() if value is not None}
        try:
            with client.stream("POST", self.base_url + PATH, json=sent) as response:
                body = self._body(response)
        except httpx.TimeoutException as error:
            raise _Transient(f"no answer within {self.options.timeout:g} s") from error
        except httpx.TransportError as error:
            raise self._broken(error) from error
        if not response.is_success:
            return self._status(response, self._said(body))
        self._answered = True
        return self._read(body)

    def _body(self, response: httpx.Response) -> bytes:
        """The bytes of an answer, within the limits of time and size."""
        limit = LONGEST_ANSWER * self.options.timeout
        late = time.monotonic() + limit
        body = bytearray()
        for part in response.iter_bytes():
            body += part
            if len(body) > LARGEST_ANSWER:
                raise _Transient(f"an answer of more than {LARGEST_ANSWER:,} bytes")
            if time.monotonic() > late:
                raise _Transient(f"no whole answer within {limit:g} s")
        return bytes(body)

    def _said(self, body: bytes) -> str:
        """The server's own words about a failure, short and on one line."""
        try:
            said = json.loads(body)["error"]
            said = said["message"] if isinstance(said, dict) else said
        except (ValueError, LookupError, TypeError):
            said = body.decode("utf-8", "replace")
        return " ".join(self._redacted(str(said)).split())[:SHOWN]

    def _status(self, response: httpx.Response, words: str) -> Refusal:
        """What a status other than 200 means for a question; raises what may pass."""
        code = response.status_code
        said = f"HTTP {code}: {words or response.reason_phrase}"
        if code in (408, 429) or code >= 500:
            pause = retry_after(response.headers.get("Retry-After")) or 0.0
            if pause > LONGEST_WAIT:
                return Refusal(f"{said}; the server asks to wait {pause:,.0f} s")
            raise _Transient(said, pause, busy=code in (429, 503))
        if code in (401, 403):
            raise ConfigError(
                f"a key that {self.base_url} accepts, in the environment variable "
                f"{self.options.key_variable}",
                said,
                "export a valid key, or name another variable with --key-variable",
            )
        if code == 404 or 300 <= code < 400:
            expected = f"chat completions of a model {self.model!r} at {self.base_url}{PATH}"
            fix = "check --model and --base-url, which usually ends in /v1"
            raise ConfigError(expected, said, fix)
        return Refusal(said)

    def _broken(self, error: BaseException) -> _Transient:
        """What a failed connection means."""
        cause = error
        while (earlier := cause.__cause__ or cause.__context__) is not None:
            cause = earlier
        said = self._redacted(str(cause) or type(cause).__name__)
        never = isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError)
        # A server that has answered before is being restarted; one that never has is not there.
        if never or (isinstance(cause, ConnectionRefusedError) and not self._answered):
            fix = "check --base-url, and that the server is running"
            raise ConfigError(f"a server at {self.base_url}", said, fix)
        return _Transient(f"the connection broke: {said}")

    def _read(self, body: bytes) -> ModelAnswer:
        try:
            answer = json.loads(body.decode())
            text = answer["choices"][0]["message"]["content"]
            usage = answer.get("usage") or {}
            counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
            if not isinstance(text, str | None):
                raise TypeError("the content is not a text")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _Transient(
                f"an answer that is not a chat completion ({type(error).__name__})"
            ) from error
        tokens_in, tokens_out = (one if isinstance(one, int) else None for one in counts)
        return ModelAnswer(self._redacted(text or ""), tokens_in, tokens_out)

    def _redacted(self, text: str) -> str:
        return text if self._key is None else text.replace(self._key, "***")


def _checked_url(text: str) -> str:
    """The address without the path of chat completions and without a slash at its end."""
    fix = "give --base-url an address such as https://api.openai.com/v1"
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigError("a base URL", str(error), fix) from error
    if url.userinfo or url.query or url.fragment:
        raise ConfigError(
            "a base URL without user, password and query",
            f"one of {url.host} with them",
            "put the key into the environment variable that --key-variable names",
        )
    if url.scheme not in ("http", "https") or not url.host or text != text.strip():
        raise ConfigError("a base URL with http:// or https:// and a host", repr(text), fix)
    return text.rstrip("/").removesuffix(PATH).rstrip("/")


def _key(variable: str | None) -> str | None:
    """The key in an environment variable."""
    if variable is None or variable.lower() == "none":
        return None
    key = os.environ.get(variable, "").strip()
    problem = "no such variable" if variable not in os.environ else "an empty one"
    if not key.isascii() or not key.isprintable() or " " in key:
        key, problem = "", "one with other characters"
    if not key:
        raise ConfigError(
            f"a key of ASCII letters, digits and signs in the environment variable {variable}",
            problem,
            f"export {variable}=..., or give --key-variable none for a server without keys",
        )
    return key
