"""A director behind a chat endpoint: a mock on loopback answers well, badly, late and with malice."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.compose.director.chat import ChatDirector, ChatSettings, recorded_director
from orbit4d.compose.director.directing import direct
from orbit4d.compose.director.grammar import rules_director
from orbit4d.compose.director.placing import ChatPlacer, PlacementView, place_actor
from orbit4d.compose.director.recording import Recording
from orbit4d.compose.director.steps import OWN_FIELDS
from orbit4d.compose.director.transport import Transport, check_url
from orbit4d.datasets import InputError, WorkError

PROMPT = "a fox walks from the left to the right"
FULL = rules_director(PROMPT).as_json()
ASKED = {key: value for key, value in FULL.items() if key not in OWN_FIELDS}
GOOD = json.dumps(ASKED)
KEY = "sk-secret-0123456789"
Act = Callable[["Endpoint", dict[str, Any]], Any]


class Endpoint:
    """A server whose nth answer is the nth act (the last one repeats); `bodies` are the requests it got."""

    def __init__(self, *acts: Any) -> None:
        self.acts, self.bodies, self.headers = acts, [], []  # type: ignore[var-annotated]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.headers.append(dict(self.headers))
                act = outer.acts[min(len(outer.bodies), len(outer.acts)) - 1]
                outer.play(self, act, body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def play(self, handler: BaseHTTPRequestHandler, act: Any, body: dict[str, Any]) -> None:
        if callable(act):
            act(handler, body)
        elif isinstance(act, tuple):
            status, headers, text = act
            send(handler, status, text.encode(), headers)
        else:
            send(handler, 200, said(act))


def said(text: Any, **message: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text, **message}}]}).encode()


def send(
    handler: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str] | None = None
) -> None:
    try:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)
    except OSError:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    started: list[Endpoint] = []

    def start(*acts: Any) -> Endpoint:
        started.append(Endpoint(*acts))
        return started[-1]

    yield start
    for endpoint in started:
        endpoint.server.shutdown()
        endpoint.server.server_close()


def director(
    endpoint: Endpoint, tmp: Path | None = None, timeout: float = 5.0
) -> tuple[ChatDirector, list[float]]:
    slept: list[float] = []
    transport = Transport(check_url(endpoint.url), timeout, KEY, slept.append)
    recording = Recording(tmp / "replies.jsonl" if tmp else None)
    return ChatDirector(ChatSettings(endpoint.url, "mock", timeout), recording, transport), slept


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        json.dumps(FULL),
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```\n",
        f"Of course! Here it is: {GOOD} Anything else?",
        f"\n\n  {GOOD}  ",
    ],
)
def test_a_good_reply_is_one_request(serve: Callable[..., Endpoint], reply: str) -> None:
    endpoint = serve(reply)
    spec = director(endpoint)[0].spec(PROMPT)
    assert spec.as_json() == {**FULL, "director": "chat"} and len(endpoint.bodies) == 1
    body = endpoint.bodies[0]
    assert body["temperature"] == 0 and "seed" in body and body["model"] == "mock"
    assert body["response_format"]["type"] == "json_schema"
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"


def broken(**changes: Any) -> str:
    return json.dumps({**ASKED, **changes})


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("I cannot do that as JSON.", "no JSON object"),
        (GOOD[:-5], "does not end"),
        (broken(actors=[]), "fewer than 1"),
        (broken(extra=1), "is no key of it"),
        (GOOD[:-1] + ', "unused": []}', "stands twice"),
        (broken(duration_s=float("nan")), "NaN"),
        ('{"a":' * 1000 + "1" + "}" * 1000, "deep"),
        (broken(unused=["dragon"]), "no word of the prompt"),
        (broken(scene={"text": "x\x1b[2J"}), "control characters"),
        (broken(scene={"text": "x" * 201}), "more than 200"),
        (broken(actors=[{**FULL["actors"][0], "relation": {"kind": "chase", "actor": 7}}]), "no actor 7"),
    ],
)
def test_an_invalid_reply_goes_back_twice_and_then_fails(
    serve: Callable[..., Endpoint], reply: str, fault: str
) -> None:
    endpoint = serve(reply)
    with pytest.raises(WorkError, match=r"step spec: .*after 2 repairs") as caught:
        director(endpoint)[0].spec(PROMPT)
    assert fault in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) <= 300
    assert len(endpoint.bodies) == 3
    assert fault in endpoint.bodies[1]["messages"][-1]["content"]


def test_a_repaired_reply_is_taken(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve("no", GOOD)
    assert director(endpoint)[0].spec(PROMPT).actors[0].object == "fox" and len(endpoint.bodies) == 2


@pytest.mark.parametrize(
    ("acts", "requests", "waits"),
    [
        ([(429, {"Retry-After": "7"}, ""), GOOD], 2, [7.0]),
        ([(429, {"Retry-After": "9999"}, ""), GOOD], 2, [60.0]),
        ([(500, {}, ""), (503, {}, ""), GOOD], 3, [1.0, 2.0]),
        ([(408, {}, ""), GOOD], 2, [1.0]),
        ([lambda h, _: send(h, 200, said(GOOD)[:40], {"Content-Length": "4000"}), GOOD], 2, [1.0]),
        ([lambda h, _: h.connection.shutdown(socket.SHUT_RDWR), GOOD], 2, [1.0]),
    ],
)
def test_what_passes_is_tried_again(
    serve: Callable[..., Endpoint], acts: list[Any], requests: int, waits: list[float]
) -> None:
    endpoint = serve(*acts)
    asked, slept = director(endpoint)
    assert asked.spec(PROMPT).director == "chat"
    assert len(endpoint.bodies) == requests and slept == waits


def redirect(where: str) -> tuple[int, dict[str, str], str]:
    return 307, {"Location": where}, ""


@pytest.mark.parametrize(
    ("act", "requests", "message"),
    [
        ((500, {}, KEY), 3, "HTTP 500 .3 tries"),
        ((401, {}, KEY), 1, "HTTP 401"),
        ((403, {}, ""), 1, "HTTP 403"),
        ((404, {}, ""), 1, "HTTP 404"),
        ((418, {}, f"teapot {KEY}"), 1, "HTTP 418"),
        (redirect("http://example.org/v1"), 1, "another host"),
        (redirect("file:///etc/passwd"), 1, "another host"),
        (lambda h, _: send(h, 200, b"x" * (10 << 20)), 1, "larger than"),
        (lambda h, _: send(h, 200, b"<html>"), 1, "no JSON"),
        (lambda h, _: send(h, 200, b'{"choices": []}'), 1, "no choices"),
        (lambda h, _: send(h, 200, said(None, refusal=f"I won't, {KEY}")), 1, "refused: I won't"),
    ],
)
def test_what_does_not_pass_fails_in_one_line(
    serve: Callable[..., Endpoint], act: Any, requests: int, message: str
) -> None:
    endpoint = serve(act)
    with pytest.raises(WorkError, match=message) as caught:
        director(endpoint)[0].spec(PROMPT)
    assert len(endpoint.bodies) == requests
    assert KEY not in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) <= 300


def drip(handler: BaseHTTPRequestHandler, _: Any) -> None:
    """A byte now and then: no single read ever times out."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.05)


@pytest.mark.parametrize("act", [drip, lambda h, _: time.sleep(1.5)])
def test_a_slow_endpoint_ends_at_its_deadline(serve: Callable[..., Endpoint], act: Any) -> None:
    endpoint = serve(act)
    with pytest.raises(WorkError, match=r"no answer within 0\.3 s"):
        director(endpoint, timeout=0.3)[0].spec(PROMPT)
    assert len(endpoint.bodies) == 1


def test_a_refused_response_format_falls_back_and_is_remembered(serve: Callable[..., Endpoint]) -> None:
    no = (400, {}, '{"error": {"message": "response_format is not supported"}}')
    endpoint = serve(no, no, GOOD)
    asked, _ = director(endpoint)
    asked.spec(PROMPT)
    asked.spec(PROMPT)
    forms = [body.get("response_format", {}).get("type") for body in endpoint.bodies]
    assert forms == ["json_schema", "json_object", None, None]


def answer_step(handler: BaseHTTPRequestHandler, body: dict[str, Any], bad_path: bool = False) -> None:
    """A model that answers each step by its schema."""
    content = body["messages"][1]["content"]
    words = content if isinstance(content, str) else content[0]["text"]
    if "Split this" in words:
        reply: Any = ASKED
    elif "How tall" in words:
        reply = {"height": 20, "width": 10}
    elif "points" in words:
        xs = np.linspace(10, 50, 19 if bad_path else 20)
        reply = {"points": [[float(x), 40.0] for x in xs]}
    else:
        reply = {"x": 50 if "red mark" in words else 10, "y": 40}
    send(handler, 200, said(json.dumps(reply)))


VIEW = PlacementView(np.full((64, 64, 3), 200, np.uint8), {"tree": (30.0, 20.0, 8.0, 20.0)})


def test_a_run_is_replayed_without_a_socket(
    serve: Callable[..., Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, _ = director(serve(answer_step), tmp_path)
    spec = asked.spec(PROMPT)
    placed = place_actor(ChatPlacer(asked, spec), spec.actors[0], VIEW)
    assert placed.start == (10, 40) and placed.end == (50, 40) and len(placed.points) == 20
    file = tmp_path / "replies.jsonl"
    text = file.read_text(encoding="utf-8")
    assert KEY not in text and "127.0.0.1" not in text and text.count("\n") == 5

    def no_socket(*_: Any, **__: Any) -> None:
        raise AssertionError("a replay opened a socket")

    monkeypatch.setattr(socket, "socket", no_socket)
    again = recorded_director(file)
    replayed = again.spec(PROMPT)
    assert {**replayed.as_json(), "director": "chat"} == spec.as_json()
    assert place_actor(ChatPlacer(again, replayed), replayed.actors[0], VIEW) == placed
    with pytest.raises(InputError, match=r"no reply for step spec, key [0-9a-f]{12};"):
        again.spec("a dog walks")
    directed = direct(PROMPT, f"recorded:{file}")
    assert "no language model ran" in directed.who and directed.spec.director == "recorded"


def test_pictures_go_along_and_words_where_they_are_refused(serve: Callable[..., Endpoint]) -> None:
    def blind(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if isinstance(body["messages"][1]["content"], list):
            assert body["messages"][1]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
            send(handler, 400, b'{"error": "image input is not supported"}')
        else:
            answer_step(handler, body)

    endpoint = serve(blind)
    asked, _ = director(endpoint)
    spec = asked.spec(PROMPT)
    place_actor(ChatPlacer(asked, spec), spec.actors[0], VIEW)
    assert any("no images" in note for note in asked.notes)
    assert "tree: box around (30, 20)" in endpoint.bodies[-1]["messages"][1]["content"]
    assert sum(isinstance(body["messages"][1]["content"], list) for body in endpoint.bodies) == 1


def test_a_path_of_19_points_and_points_outside_are_refused(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(lambda h, body: answer_step(h, body, bad_path=True))
    asked, _ = director(endpoint)
    spec = asked.spec(PROMPT)
    with pytest.raises(WorkError, match=r"step path: .*19 entries, fewer than 20"):
        place_actor(ChatPlacer(asked, spec), spec.actors[0], VIEW)
    small = PlacementView(VIEW.image[:30, :30])
    with pytest.raises(WorkError, match="outside the picture"):
        place_actor(ChatPlacer(asked, spec), spec.actors[0], small)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x/v1",
        "file:///etc/passwd",
        "http://",
        "http://u:p@h/v1",
        "http://h/v1?k=1",
        "http://h:x/v1",
    ],
)
def test_bad_addresses_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        ChatDirector(ChatSettings(url, "m"))
    assert "u:p" not in str(caught.value)


def test_the_rules_stand_in_only_where_they_are_named(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve((404, {}, ""))
    settings = ChatSettings(endpoint.url, "m", 5.0)
    with pytest.raises(WorkError):
        direct(PROMPT, "chat", settings)
    both = direct(PROMPT, "chat,rules", settings)
    assert both.spec.director == "rules" and both.who == "rules (grammar; no language model ran)"
    assert any("chat wrote nothing" in note for note in both.notes)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "holds no replies"),
        ("nonsense\n", ":1: no JSON"),
        ('{"key": "a"}\n', ":1: needs the keys"),
        (
            '{"key":"a","step":"s","request":{},"reply":"r","model":"m","seconds":1}\n',
            ":1: key a is not that of",
        ),
    ],
)
def test_a_bad_recording_is_refused_with_its_line(tmp_path: Path, lines: str, message: str) -> None:
    file = tmp_path / "replies.jsonl"
    file.write_text(lines, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        recorded_director(file)
    with pytest.raises(InputError, match="none"):
        recorded_director(tmp_path / "none.jsonl")


def test_an_endpoint_that_wants_a_key_names_the_variable(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve((401, {}, ""))
    transport = Transport(check_url(endpoint.url), 5.0, "")
    with pytest.raises(InputError, match="ORBIT4D_CHAT_KEY"):
        ChatDirector(ChatSettings(endpoint.url, "m"), Recording(), transport).spec(PROMPT)


def test_replies_that_were_invalid_to_the_end_are_asked_for_again(
    serve: Callable[..., Endpoint], tmp_path: Path
) -> None:
    record = tmp_path / "replies.jsonl"
    bad = serve("no JSON")
    settings = ChatSettings(bad.url, "mock", 5.0)
    with pytest.raises(WorkError, match="still invalid after 2 repairs"):
        direct(PROMPT, "chat", settings, record)
    assert len(bad.bodies) == 3 and len(Recording.load(record).replies) == 3
    good = serve(GOOD)
    done = direct(PROMPT, "chat", ChatSettings(good.url, "mock", 5.0), record)
    assert done.spec.actors[0].object == "fox" and len(good.bodies) == 1
    assert any("asked again" in note for note in done.notes)
    # What is kept is what counts: a replay of it gives the same spec.
    assert len(Recording.load(record).replies) == 1
    assert recorded_director(record).spec(PROMPT).actors == done.spec.actors
