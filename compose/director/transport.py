"""One POST to a chat endpoint: bounded in time, size and tries, without proxies and foreign redirects.

Only `http.client` of the standard library. The key is sent as a bearer token and taken out of every text that
leaves this module.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from orbit4d.compose.strict_json import NotJson, parse_json, printable
from orbit4d.datasets.core.errors import InputError, WorkError

KEY_VARIABLE = "ORBIT4D_CHAT_KEY"
MAX_BODY = 1 << 20
TRIES = 3
WAITS = (1.0, 2.0, 4.0)
MAX_WAIT = 60.0
CONNECT_SECONDS = 10.0
_AGAIN = {408, 429, 500, 502, 503, 504}
_MAX_REDIRECTS = 3


class Refused(Exception):
    """The endpoint answered with a client error; `status`, and its text without the key."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        super().__init__(f"{status} {text}")


class _Again(Exception):
    """Worth another try: the reason, and how long the endpoint asks to wait."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        self.reason, self.wait = reason, wait
        super().__init__(reason)


def check_url(url: str) -> str:
    """The address of `/chat/completions` below an endpoint's base URL. Raises InputError."""
    shown = printable(url, 120)
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise InputError(
            f"--chat-url {shown}: {printable(error, 80)}; give http(s)://host[:port]/v1"
        ) from None
    if "@" in parts.netloc:
        raise InputError(
            f"--chat-url: has a user or password in it; leave it out and set {KEY_VARIABLE} to the key"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in url.strip()):
        raise InputError(f"--chat-url {shown}: is no http(s) address; give http(s)://host[:port]/v1")
    if parts.query or parts.fragment or (port is not None and not 0 < port < 65536):
        raise InputError(f"--chat-url {shown}: has more than an address; give http(s)://host[:port]/v1")
    path = parts.path.rstrip("/")
    path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
    return f"{parts.scheme}://{parts.netloc}{path}"


@dataclass
class Transport:
    """Posts JSON to one address; `requests` counts what was sent."""

    url: str
    timeout: float = 60.0
    key: str = field(default_factory=lambda: os.environ.get(KEY_VARIABLE, ""), repr=False)
    sleep: Callable[[float], None] = time.sleep
    requests: int = 0

    def __post_init__(self) -> None:
        if not self.key.isascii() or any(ord(letter) < 33 for letter in self.key.strip()):
            raise InputError(f"{KEY_VARIABLE}: holds characters that no key has; set it again")
        self.key = self.key.strip()

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def post(self, body: Mapping[str, Any]) -> Any:
        """The JSON that the endpoint answers.

        Raises:
            Refused: a client error that may depend on the request (400, 404 on a model, 415, 422).
            InputError: the endpoint wants a key and there is none.
            WorkError: unreachable, refused (401, 403, 404), timed out, too large, redirected elsewhere, or
                still failing after three tries.
        """
        data = json.dumps(body).encode()
        reasons: list[str] = []
        for attempt in range(TRIES):
            try:
                return self._once(data)
            except _Again as again:
                reasons.append(again.reason)
                if attempt + 1 < TRIES:
                    self.sleep(min(again.wait if again.wait is not None else WAITS[attempt], MAX_WAIT))
        raise WorkError(
            f"chat endpoint {self.host}: {self.clean(reasons[-1], 120)} ({TRIES} tries); try later"
        )

    def clean(self, text: Any, most: int = 200) -> str:
        """A text of the endpoint as one short line without the key."""
        plain = str(text)
        return printable(plain.replace(self.key, "***") if self.key else plain, most)

    def _once(self, data: bytes) -> Any:
        url = self.url
        for _ in range(_MAX_REDIRECTS + 1):
            status, headers, body = self._exchange(url, data)
            if status not in (301, 302, 303, 307, 308):
                return self._answer(status, headers, body)
            there = urljoin(url, headers.get("location", ""))
            if urlsplit(there)[:2] != urlsplit(url)[:2]:
                raise WorkError(
                    f"chat endpoint {self.host}: redirects to "
                    f"{self.clean(urlsplit(there).netloc, 60)!r}, which is another host; "
                    "give that one as --chat-url if you trust it"
                )
            url = there
        raise WorkError(f"chat endpoint {self.host}: redirects in a circle; check --chat-url")

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> Any:
        text = body.decode("utf-8", "replace")
        if status in _AGAIN or status >= 500:
            raise _Again(f"HTTP {status}", _seconds(headers.get("retry-after")))
        if status in (401, 403) and not self.key:
            raise InputError(f"chat endpoint {self.host}: HTTP {status}, it wants a key; set {KEY_VARIABLE}")
        if status in (401, 403, 404):
            fix = "check --chat-url and --chat-model" if status == 404 else f"check {KEY_VARIABLE}"
            raise WorkError(f"chat endpoint {self.host}: HTTP {status} (1 try); {fix}")
        if status >= 400:
            raise Refused(status, self.clean(text, 2000))
        try:
            return parse_json(text, max_bytes=MAX_BODY, max_depth=64)
        except NotJson as error:
            raise WorkError(f"chat endpoint {self.host}: its answer is {self.clean(error)}") from None

    def _exchange(self, url: str, data: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(url)
        connection = _connection(parts.scheme, parts.hostname or "", parts.port)
        watch = _Watch(self.timeout)
        try:
            connection.connect()
            watch.start(connection.sock)
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            if self.key:
                headers["Authorization"] = f"Bearer {self.key}"
            self.requests += 1
            connection.request("POST", parts.path or "/", data, headers)
            answer = connection.getresponse()
            body = answer.read(MAX_BODY + 1)
            length = answer.getheader("content-length") or ""
            if len(body) > MAX_BODY:
                raise WorkError(f"chat endpoint {self.host}: its answer is larger than {MAX_BODY} bytes")
            if watch.late:
                raise TimeoutError
            if length.isdigit() and len(body) < int(length):
                raise _Again("the answer was cut off")
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body
        except (http.client.HTTPException, OSError) as error:
            if watch.late or isinstance(error, TimeoutError):
                raise WorkError(
                    f"chat endpoint {self.host}: no answer within {self.timeout:g} s (1 try); "
                    "raise --chat-timeout"
                ) from None
            raise _Again(f"cannot be reached or broke off ({type(error).__name__})") from None
        finally:
            watch.cancel()
            connection.close()


class _Watch:
    """Ends a request at its deadline: a server that sends a byte now and then never times out by itself."""

    def __init__(self, seconds: float) -> None:
        self.late = False
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def start(self, opened: socket.socket) -> None:
        opened.settimeout(self._seconds)

        def stop() -> None:
            self.late = True
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

        self._timer = threading.Timer(self._seconds, stop)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=context)
    return http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)


def _seconds(text: str | None) -> float | None:
    """Seconds of a Retry-After header; dates are not read."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e9 else None
