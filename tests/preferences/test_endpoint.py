import json
import socket
import ssl
import threading
import time

import pytest
from asked_model import KEY, Said, completion

from modalign.errors import ConfigError
from modalign.preferences import endpoint
from modalign.preferences.endpoint import OpenAICompatible
from modalign.preferences.provider import ModelAnswer, Refusal


def asker(server, clock, **options):
    given = {"key_variable": "TEST_KEY", "now": clock.now, "sleep": clock.sleep} | options
    return OpenAICompatible(server.url, "tiny-1", **given)


def ask(model, prompts):
    return dict(model.answers(prompts))


def test_a_request_is_what_the_interface_says(server, clock):
    server.behave = lambda number, prompt: completion(
        "Likes tea.", prompt_tokens=12, completion_tokens=3
    )
    got = ask(asker(server, clock, max_tokens=7), ["What?"])
    assert got == {0: ModelAnswer("Likes tea.", 12, 3)}
    assert server.paths == ["/v1/chat/completions"]
    assert server.requests == [
        {
            "model": "tiny-1",
            "messages": [{"role": "user", "content": "What?"}],
            "temperature": 0,
            "max_tokens": 7,
        }
    ]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.headers[0]["Content-Type"] == "application/json"


def test_every_prompt_gets_its_own_answer_whatever_the_order(server, clock):
    prompts = [f"prompt {'x' * n}" for n in range(40)]
    got = ask(asker(server, clock, concurrency=8), prompts)
    assert got == {n: ModelAnswer(f"Likes {len(one)} red shoes.") for n, one in enumerate(prompts)}
    assert sorted(server.prompts) == sorted(prompts)
    assert ask(asker(server, clock), []) == {}


def test_so_many_are_under_way_at_a_time_and_no_more(server, clock):
    lock, now, most = threading.Lock(), [0], [0]

    def behave(number, prompt):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.03)
        with lock:
            now[0] -= 1
        return completion("x")

    server.behave = behave
    ask(asker(server, clock, concurrency=3), ["a"] * 12)
    assert most[0] == 3


def test_a_busy_server_is_given_the_time_it_asks_for(server, clock):
    def behave(number, prompt):
        if number < 2:
            return Said(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "17"})
        return completion("Likes tea.")

    server.behave = behave
    assert ask(asker(server, clock, concurrency=1), ["What?"]) == {0: ModelAnswer("Likes tea.")}
    assert len(server.requests) == 3
    assert clock.time == pytest.approx(34)


@pytest.mark.parametrize(
    "said",
    [
        Said(500, b"oops"),
        Said(503),
        Said(408),
        Said(200, b"{ not json"),
        Said(200, b"[]"),
        Said(200, b'{"choices": []}'),
        Said(200, b'{"choices": [{"message": {"content": 5}}]}'),
        Said(200, b"\xff\xfe"),
    ],
    ids=lambda said: f"{said.status} {said.body[:20]!r}",
)
def test_what_may_pass_is_tried_again_with_longer_pauses(said, server, clock):
    server.behave = lambda number, prompt: said if number < 4 else completion("Likes tea.")
    assert ask(asker(server, clock), ["What?"]) == {0: ModelAnswer("Likes tea.")}
    assert len(server.requests) == 5
    assert 0.25 * 15 <= clock.time <= 0.5 * 15


def test_what_does_not_pass_is_a_refusal_with_its_reason(server, clock):
    server.behave = lambda number, prompt: (
        Said(500, b'{"error": {"message": "no  memory\\nleft"}}')
        if prompt == "b"
        else completion("x")
    )
    got = ask(asker(server, clock, retries=2), ["a", "b", "c"])
    answer = ModelAnswer("x")
    assert got == {0: answer, 1: Refusal("HTTP 500: no memory left (3 attempts)"), 2: answer}
    assert server.prompts.count("b") == 3


def test_a_question_that_is_refused_for_itself_is_not_asked_again(server, clock):
    server.behave = lambda number, prompt: Said(400, b'{"error": "too long"}')
    assert ask(asker(server, clock), ["a"]) == {0: Refusal("HTTP 400: too long")}
    assert len(server.requests) == 1


def test_a_wait_past_all_patience_is_a_refusal(server, clock):
    server.behave = lambda number, prompt: Said(429, b"quota", {"Retry-After": "86400"})
    (got,) = ask(asker(server, clock), ["a"]).values()
    assert got == Refusal("HTTP 429: quota; the server asks to wait 86,400 s")
    assert clock.time == 0


def test_the_pauses_of_two_runs_differ(server, clock):
    server.behave = lambda number, prompt: Said(500)
    for _ in range(2):
        ask(asker(server, clock, retries=3, concurrency=1), ["a"])
    first, second = clock.slept[:3], clock.slept[3:]
    assert first != second
    for pauses in (first, second):
        assert all(0.25 * 2**n <= one <= 0.5 * 2**n for n, one in enumerate(pauses))


def test_a_busy_server_gets_no_other_request_during_a_pause(server, clock):
    sent = []

    def behave(number, prompt):
        sent.append(clock.time)
        return Said(503, headers={"Retry-After": "40"}) if number == 0 else completion("x")

    server.behave = behave
    model = asker(server, clock, concurrency=1)
    ask(model, ["a", "b"])
    assert sent == [0, 40, 40]


def test_an_answer_without_end_is_cut_off(server, clock, monkeypatch):
    monkeypatch.setattr(endpoint, "LARGEST_ANSWER", 1000)
    server.behave = lambda number, prompt: completion("x" * 2000)
    got = ask(asker(server, clock, retries=0), ["a"])
    assert got == {0: Refusal("an answer of more than 1,000 bytes (1 attempt)")}
    monkeypatch.setattr(endpoint, "LARGEST_ANSWER", 4_000_000)
    monkeypatch.setattr(endpoint, "LONGEST_ANSWER", 0)
    got = ask(asker(server, clock, retries=0), ["a"])
    assert got == {0: Refusal("no whole answer within 0 s (1 attempt)")}


@pytest.mark.slow
def test_silence_is_tried_again(server, clock):
    server.behave = lambda number, prompt: (
        Said(delay=30) if number == 0 else completion("Likes tea.")
    )
    got = ask(asker(server, clock, timeout=0.15), ["a"])
    assert got == {0: ModelAnswer("Likes tea.")}
    server.behave = lambda number, prompt: Said(delay=30)
    got = ask(asker(server, clock, timeout=0.1, retries=1), ["a"])
    assert got == {0: Refusal("no answer within 0.1 s (2 attempts)")}


def test_an_answer_of_nothing_is_an_answer(server, clock):
    server.behave = lambda number, prompt: completion(None if prompt == "a" else "")
    assert ask(asker(server, clock), ["a", "b"]) == {0: ModelAnswer(""), 1: ModelAnswer("")}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "a key that .* in the environment variable TEST_KEY, got HTTP 401: bad key"),
        (403, "a key that"),
        (404, "model 'tiny-1' at .*/v1/chat/completions, got HTTP 404: bad key.* ends in /v1"),
        (307, "model 'tiny-1'"),
    ],
)
def test_what_no_question_can_pass_stops_at_once(status, words, server, clock):
    said = Said(status, b'{"error": {"message": "bad key"}}', {"Location": "http://127.0.0.1:9/"})
    server.behave = lambda number, prompt: said
    with pytest.raises(ConfigError, match=words):
        ask(asker(server, clock, concurrency=2), ["a"] * 100)
    assert len(server.requests) <= 8


def test_a_redirect_never_carries_the_key_away(server, clock):
    server.behave = lambda number, prompt: Said(302, headers={"Location": f"{server.url}/away"})
    with pytest.raises(ConfigError):
        ask(asker(server, clock), ["a"])
    assert server.paths == ["/v1/chat/completions"]


def test_a_server_that_is_not_there_is_told_at_once(server, clock):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = OpenAICompatible(f"http://127.0.0.1:{port}/v1", "m", key_variable=None)
    with pytest.raises(ConfigError, match=f"a server at http://127.0.0.1:{port}/v1, got .*refused"):
        ask(model, ["a"] * 5)


@pytest.mark.parametrize(
    "cause",
    [
        socket.gaierror(-2, "Name or service not known"),
        ssl.SSLCertVerificationError("self-signed certificate"),
    ],
)
def test_a_wrong_host_name_or_certificate_stops_at_once(cause, server, clock, monkeypatch):
    model = asker(server, clock)
    monkeypatch.setattr(socket, "create_connection", raising(cause))
    with pytest.raises(ConfigError, match=f"a server at {server.url}, got .*{cause.args[-1]}"):
        ask(model, ["a"] * 5)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "what://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_stops_at_once(proxy, server, clock, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    assert ask(asker(server, clock), ["a"])  # NO_PROXY has its host
    monkeypatch.delenv("NO_PROXY")
    with pytest.raises(ConfigError, match=r"an HTTP proxy in HTTP_PROXY.*127\.0\.0\.1 to NO_PROXY"):
        ask(asker(server, clock), ["a"])
    monkeypatch.delenv("HTTP_PROXY")
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert ask(asker(server, clock), ["a"])


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_proxy_gets_the_request(scheme, server, clock, monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1").replace("http://", scheme))
    model = OpenAICompatible("http://somewhere.invalid/v1", "m", key_variable=None)
    assert ask(model, ["a"]) == {0: ModelAnswer("Likes 1 red shoes.")}
    assert server.paths == ["http://somewhere.invalid/v1/chat/completions"]


def test_a_server_that_restarts_is_asked_again(server, clock, monkeypatch):
    model = asker(server, clock, retries=1)
    ask(model, ["a"])
    monkeypatch.setattr(socket, "create_connection", raising(ConnectionRefusedError(111, "no")))
    got = ask(model, ["a"])
    assert got == {0: Refusal("the connection broke: [Errno 111] no (2 attempts)")}


def raising(error):
    def fails(*args, **options):
        raise error

    return fails


def test_no_minute_sees_more_requests_than_allowed(server, clock):
    moments = []
    server.behave = lambda number, prompt: (moments.append(clock.time), completion("x"))[1]
    ask(asker(server, clock, requests_per_minute=5, concurrency=1), ["a"] * 17)
    assert len(moments) == 17
    assert all(b - a >= 60 for a, b in zip(moments, moments[5:], strict=False))
    assert clock.time == pytest.approx(180)


def test_no_minute_sees_more_tokens_than_allowed(server, clock):
    # 40 tokens of prompt and 10 of answer: two fit into 100.
    model = asker(server, clock, tokens_per_minute=100, max_tokens=10, concurrency=1)
    ask(model, ["abcd" * 40] * 6)
    assert clock.time == pytest.approx(120)


def test_the_key_is_in_one_header_and_nowhere_else(server, clock, capfd, caplog):
    caplog.set_level(0)
    echo = json.dumps({"error": {"message": f"Incorrect key {KEY} given"}}).encode()
    told = []
    for status in (400, 401, 500):
        server.behave = lambda number, prompt, status=status: Said(status, echo)
        model = asker(server, clock, retries=1)
        try:
            told += [str(one) for one in ask(model, ["a"]).values()]
        except ConfigError as error:
            told += [str(error), repr(error), repr(error.__cause__)]
        told += [repr(model), str(model), json.dumps(model.identity())]
    server.behave = lambda number, prompt: completion(f"Likes {KEY}.")
    told += [str(ask(asker(server, clock), ["a"]))]
    shown = capfd.readouterr()
    everything = "\n".join([*told, shown.out, shown.err, caplog.text, json.dumps(server.requests)])
    assert "***" in everything
    assert KEY not in everything
    assert all(one["Authorization"] == f"Bearer {KEY}" for one in server.headers)


@pytest.mark.parametrize("key", [None, "", "  ", "two words", "sk-\n-broken", "schlüssel"])
def test_a_key_that_is_none_is_told_without_showing_it(key, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(ConfigError, match="SOME_KEY") as caught:
        OpenAICompatible("http://localhost/v1", "m", key_variable="SOME_KEY")
    assert not key or not key.strip() or key not in str(caught.value)


def test_a_server_without_a_key_gets_none(server, clock):
    ask(asker(server, clock, key_variable=None), ["a"])
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", " http://host",
     "file:///etc/passwd", "http://[::1/v1"],
)  # fmt: skip
def test_an_address_that_is_none_is_told(url):
    with pytest.raises(ConfigError, match="base URL"):
        OpenAICompatible(url, "m", key_variable=None)


@pytest.mark.parametrize("url", ["https://me:secret@host/v1", "https://host/v1?key=secret"])
def test_a_secret_in_an_address_is_refused_without_showing_it(url):
    with pytest.raises(ConfigError, match="without user, password and query") as caught:
        OpenAICompatible(url, "m", key_variable=None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "/", "/chat/completions", "/chat/completions/"])
def test_an_address_may_end_as_people_copy_it(end, server, clock):
    server.url += end
    ask(asker(server, clock), ["a"])
    assert server.paths == ["/v1/chat/completions"]


def test_further_fields_go_along_and_none_takes_one_out(server, clock):
    extra = {"max_tokens": None, "max_completion_tokens": 99, "seed": 1}
    model = asker(server, clock, extra=extra)
    ask(model, ["a"])
    (sent,) = server.requests
    assert "max_tokens" not in sent
    assert (sent["max_completion_tokens"], sent["seed"]) == (99, 1)
    assert model.identity()["extra"] == extra


@pytest.mark.parametrize(
    "option",
    [
        {"max_tokens": 0},
        {"timeout": 0},
        {"retries": -1},
        {"concurrency": 0},
        {"requests_per_minute": 0},
        {"tokens_per_minute": 0},
        {"model": ""},
        {"retires": 3},
    ],
)
def test_options_out_of_their_bounds_are_told(option):
    given = {"model": "m", "key_variable": None} | option
    with pytest.raises(ConfigError):
        OpenAICompatible("http://localhost/v1", **given)


def test_who_stops_listening_stops_the_asking(server, clock):
    answers = asker(server, clock, concurrency=2).answers(["a"] * 500)
    next(answers)
    answers.close()
    asked = len(server.requests)
    assert asked <= 10
    threading.Event().wait(0.1)
    assert len(server.requests) == asked


def test_who_stops_listening_does_not_wait_for_pauses(server):
    server.behave = lambda number, prompt: completion("x") if prompt == "a" else Said(500)
    model = OpenAICompatible(server.url, "m", key_variable=None, retries=9, concurrency=2)
    answers = model.answers(["a", *["b"] * 20])
    assert next(answers) == (0, ModelAnswer("x"))
    start = time.monotonic()
    answers.close()
    assert time.monotonic() - start < 5  # the pauses would be minutes
