"""An S3 server with bad weather, and a cluster of two nodes that works on it without Blender."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ERRORS = {
    "SlowDown": ("503 Slow Down", "Please reduce your request rate"),
    "InternalError": ("500 Internal Server Error", "We encountered an internal error"),
    "NoSuchBucket": ("404 Not Found", "The specified bucket does not exist"),
    "AccessDenied": ("403 Forbidden", "Access Denied"),
}


class Weather:
    """Stands between an S3 server and those who use it: latency, failures, an outage. Counts requests."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.clear()

    def clear(self) -> None:
        self.latency, self.fail_every, self.always, self.denied = 0.0, 0, "", ""
        self.script: list[str] = []
        self.log: list[tuple[str, str]] = []
        self._count = itertools.count(1)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        number = next(self._count)
        path = environ["PATH_INFO"]
        self.log.append((environ["REQUEST_METHOD"], path))
        time.sleep(self.latency)
        code = self.script.pop(0) if self.script else self.always
        if self.fail_every and number % self.fail_every == 0:
            code = ("SlowDown", "InternalError")[number // self.fail_every % 2]
        if self.denied and self.denied in path:
            code = "AccessDenied"
        if not code:
            return self.app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, message = ERRORS[code]
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()]


@pytest.fixture(scope="module")
def stormy() -> Iterator[Weather]:
    """The weather over `s3://orbit`; this process and those that it starts reach the bucket."""
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    from moto.moto_server.threaded_moto_server import MotoRequestHandler
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    weather = Weather(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, weather, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        patch.setenv("AWS_ACCESS_KEY_ID", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # An outage is seen at once and not after the client's own tries.
        patch.setenv("AWS_MAX_ATTEMPTS", "2")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.delenv("AWS_PROFILE", raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        # Servers of one process share what they hold: that of an earlier module is forgotten first.
        address = f"http://127.0.0.1:{server.server_address[1]}/moto-api/reset"
        with urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=30):
            pass
        s3fs.S3FileSystem().mkdir("orbit")
        yield weather
        s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()


@pytest.fixture
def weather(stormy: Weather) -> Iterator[Weather]:
    """Fair when a test begins."""
    stormy.clear()
    yield stormy
    stormy.clear()


@pytest.fixture(scope="module")
def nodes(stormy: Weather) -> Iterator[Any]:
    """A Ray cluster of two nodes with a core each; this process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])))
        patch.syspath_prepend(str(HERE))
        store = {"object_store_memory": 100 << 20}
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, **store},
            shutdown_at_exit=False,
        )
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, **store)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            sys.modules.pop("fleet_jobs", None)
