"""The server of the review page: standard library, one process, fixed addresses.

It binds to loopback by default, answers requests for its own host name alone (a foreign page whose name was
made to resolve to this machine is refused), takes changes only as JSON from its own page, and maps no part of
an address to a file.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from orbit4d.curate.review.queries import Review, rules_yaml
from orbit4d.datasets.core.errors import InputError, OrbitError, WorkError

#: Free ports that are tried one after another.
MOST_PORTS = 20
_MOST_BYTES = 1 << 20
_PAGES = {
    "/": ("review.html", "text/html; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
    "/sliders.js": ("sliders.js", "text/javascript; charset=utf-8"),
}
_IMAGE = re.compile(r"/(preview|frames)/([0-9]{1,9})\.webp")
_POLICY = (
    "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


class ReviewServer(ThreadingHTTPServer):
    """A page on a review, served until `close`."""

    daemon_threads = True

    def __init__(self, review: Review, host: str = "127.0.0.1", port: int = 8087, reviewer: str = "") -> None:
        """Bind to the first free port from `port` on (0: any). Raises InputError where there is none."""
        self.review, self.host, self.reviewer = review, host, reviewer
        if ":" in host:
            self.address_family = socket.AF_INET6
        pages = files("orbit4d.curate.review")
        self.pages = {
            path: (pages.joinpath(name).read_bytes(), kind) for path, (name, kind) in _PAGES.items()
        }
        for number in range(port, port + (MOST_PORTS if port else 1)):
            with contextlib.suppress(OSError, OverflowError):
                super().__init__((host, number), _Handler)
                break
        else:
            raise InputError(f"--host {host} --port {port}: cannot be served there; choose another")
        self.port = int(self.server_address[1])

    @property
    def url(self) -> str:
        """The page's address."""
        shown = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}/"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host == "localhost" or (_is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback)

    def knows(self, header: str) -> bool:
        """Whether a Host header names this server. Beyond loopback, numeric addresses and the machine's own
        names do: no name that somebody else controls."""
        try:
            name = (urlsplit(f"//{header}").hostname or "").lower()
            port = urlsplit(f"//{header}").port or 80
        except ValueError:
            return False
        if port != self.port:
            return False
        if name in ("localhost", "127.0.0.1", "::1", self.host.lower()):
            return True
        return not self.loopback and (
            _is_ip(name) or name in {socket.gethostname().lower(), socket.getfqdn()}
        )

    def start(self) -> threading.Thread:
        """Serve in a thread."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Stop serving; every label is on the disk already."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no fault; anything else is one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"review: {type(error).__name__}: {error}", file=sys.stderr)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ReviewServer
    timeout = 60

    def do_GET(self) -> None:
        """The page, its parts, and the images of clips."""
        if not self._welcome():
            return
        path = urlsplit(self.path).path
        review = self.server.review
        if path in self.server.pages:
            self._send(HTTPStatus.OK, *self.server.pages[path])
        elif path == "/api/about":
            self._answer({**review.about(), "reviewer": self.server.reviewer})
        elif (match := _IMAGE.fullmatch(path)) and int(match[2]) < review.n:
            self._image(match[1], int(match[2]))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:
        """What the page asks and says."""
        if not self._welcome():
            return
        asked = self._asked()
        if asked is None:
            return
        try:
            answer = self._call(urlsplit(self.path).path, asked)
        except InputError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except OrbitError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        else:
            if answer is None:
                self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            else:
                self._answer(answer)

    def _call(self, path: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        review = self.server.review
        reviewer = asked.get("reviewer")
        reviewer = reviewer.strip()[:80] if isinstance(reviewer, str) else ""
        if path == "/api/rows":
            return review.rows({**asked, "reviewer": reviewer})
        if path == "/api/rules":
            return {"yaml": rules_yaml(review.opened.rules, asked.get("rules") or {})}
        if path == "/api/undo":
            return review.undo(reviewer)
        if path in ("/api/clip", "/api/label"):
            row = asked.get("row")
            if isinstance(row, bool) or not isinstance(row, int):
                raise InputError("row is the number of a clip")
            if path == "/api/clip":
                return review.clip(row, asked.get("rules") or {}, reviewer)
            label = asked.get("label")
            if label is not None and not isinstance(label, str):
                raise InputError("label is accept, reject, flag or null")
            return review.label(row, label, reviewer)
        return None

    def _welcome(self) -> bool:
        """Whether the request is meant for this server and comes from its own page."""
        host = self.headers.get("Host", "")
        if not self.server.knows(host):
            self._refuse(HTTPStatus.FORBIDDEN, "this server does not go by that name")
            return False
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            self._refuse(HTTPStatus.FORBIDDEN, "another page asked")
            return False
        return True

    def _asked(self) -> dict[str, Any] | None:
        # A form of a foreign page can send texts without being asked for leave; JSON it cannot.
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        length = self.headers.get("Content-Length", "")
        if kind != "application/json" or not length.isdigit() or int(length) > _MOST_BYTES:
            self.close_connection = True
            self._refuse(HTTPStatus.BAD_REQUEST, "JSON of at most a megabyte is asked for")
            return None
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "a JSON object is asked for")
            return None
        return asked

    def _image(self, kind: str, row: int) -> None:
        review = self.server.review
        data = b""
        if kind == "preview":
            data = review.opened.previews.read(row)
        elif review.opened.frames is not None:
            try:
                data = review.opened.frames(row)
            except (WorkError, InputError) as error:
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
                return
        if data:
            self._send(HTTPStatus.OK, data, "image/webp", "private, max-age=3600")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "this clip has no image")

    def _answer(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer, allow_nan=False, default=str)
        # Names from untrusted files may hold half of a pair of surrogates, which is no text.
        self._send(HTTPStatus.OK, text.encode("utf-8", "replace"), "application/json")

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        # What a refused request still has to say is not read.
        self.close_connection = True
        self._send(status, json.dumps({"error": text}).encode(), "application/json")

    def _send(self, status: HTTPStatus, data: bytes, kind: str, cache: str = "no-store") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Cache-Control": cache,
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
