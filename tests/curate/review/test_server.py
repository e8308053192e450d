"""What the review server answers, what it refuses, and that nothing of an address reaches a file."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from PIL import Image

from orbit4d.curate.commands.review import command, default_labels
from orbit4d.curate.labels import LabelBook
from orbit4d.curate.review.opening import open_source
from orbit4d.curate.review.queries import Review
from orbit4d.curate.review.server import ReviewServer
from orbit4d.curate.tables import write_table
from orbit4d.datasets import read_clip
from orbit4d.datasets.core.errors import InputError


def serve(source: Path, labels: Path) -> Iterator[ReviewServer]:
    book = LabelBook(labels)
    server = ReviewServer(Review(open_source(str(source)), book), port=0, reviewer="ada")
    server.start()
    yield server
    server.close()
    book.close()


@pytest.fixture
def server(table_path: Path, tmp_path: Path) -> Iterator[ReviewServer]:
    yield from serve(table_path, tmp_path / "l.parquet")


def ask(server: ReviewServer, method: str, path: str, body: Any = None, **heads: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    heads = {name.replace("_", "-"): value for name, value in heads.items()}
    if body is not None:
        heads = {"Content-Type": "application/json", **heads}
    connection.request(method, path, data, heads)
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    return answer.status, read


def post(server: ReviewServer, path: str, **asked: Any) -> dict[str, Any]:
    status, body = ask(server, "POST", path, asked)
    assert status == 200, body
    return json.loads(body)


def test_a_foreign_host_or_origin_is_refused(server: ReviewServer) -> None:
    port = server.port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"):
        assert ask(server, "GET", "/api/about", Host=host)[0] == 200, host
    for host in (
        f"evil.example:{port}",
        "127.0.0.1",
        f"localhost.evil.example:{port}",
        f"10.0.0.1:{port}",
        "x:y",
        "",
    ):
        assert ask(server, "GET", "/", Host=host)[0] == 403, host
        assert ask(server, "POST", "/api/label", {"row": 0, "label": "accept"}, Host=host)[0] == 403, host
    good = {"row": 0, "label": "accept", "reviewer": "ada"}
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}"):
        assert ask(server, "POST", "/api/label", good, Origin=origin)[0] == 403, origin
    # A form of another page can send this without asking.
    assert ask(server, "POST", "/api/label", good, Content_Type="text/plain")[0] == 400
    assert server.review.book.all() == []
    assert ask(server, "POST", "/api/label", good, Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert len(server.review.book.all()) == 1


def test_beyond_loopback_names_of_others_are_still_refused(server: ReviewServer) -> None:
    assert server.loopback
    server.host = "0.0.0.0"
    assert not server.loopback and server.url == f"http://127.0.0.1:{server.port}/"
    assert server.knows(f"192.168.1.7:{server.port}") and not server.knows(f"evil.example:{server.port}")


def test_addresses_reach_no_file(server: ReviewServer, table_path: Path) -> None:
    for path in (
        "/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        f"/{table_path}",
        "/review.html",
        "/preview/../../x.webp",
        "/preview/-1.webp",
        "/preview/30.webp",
        "/preview/1e3.webp",
        "/frames/0.webp",
        "/__init__.py",
        "//etc/passwd",
    ):
        status, body = ask(server, "GET", path)
        assert status == 404 and b"root:" not in body, path
    assert ask(server, "POST", "/api/rows", b"[1]")[0] == 400
    assert ask(server, "POST", "/api/rows", b"{")[0] == 400
    assert ask(server, "POST", "/api/nothing", {})[0] == 404
    where = {"where": f"(SELECT count(*) FROM read_parquet('{table_path}')) > 0"}
    status, body = ask(server, "POST", "/api/rows", where)
    assert status == 400 and b"disabled" in body
    assert ask(server, "POST", "/api/rows", {"where": "true); DROP TABLE part; SELECT (1"})[0] == 400


def test_a_preview_is_the_stored_one(server: ReviewServer, make_table: Callable[..., pa.Table]) -> None:
    status, data = ask(server, "GET", "/preview/7.webp")
    assert status == 200 and data == make_table(30)["preview"][7].as_py()


def test_pages_are_whole_and_labels_on_the_way_skip_nothing(server: ReviewServer) -> None:
    seen: list[int] = []
    start: int | None = 0
    while start is not None:
        asked = {"sort": "union_growth", "descending": True, "label": "none", "reviewer": "ada", "limit": 7}
        page = post(server, "/api/rows", start=start, **asked)
        for row in page["rows"]:
            seen.append(row["row"])
            post(server, "/api/label", row=row["row"], label="accept", reviewer="ada")
        start = page["next"]
    assert sorted(seen) == list(range(30)) and len(seen) == 30
    growth = server.review.table["union_growth"].to_numpy()[seen]
    assert (np.diff(growth) <= 0).all()
    assert post(server, "/api/rows", label="none", reviewer="ada")["total"] == 0


def test_every_column_sorts_and_nulls_come_last(server: ReviewServer) -> None:
    review = server.review
    for name in [column["name"] for column in review.about()["columns"]]:
        for descending in (False, True):
            page = post(server, "/api/rows", sort=name, descending=descending, limit=120)
            assert sorted(row["row"] for row in page["rows"]) == list(range(30)), name
    up = [row["row"] for row in post(server, "/api/rows", sort="duplicate_of")["rows"]]
    assert up[:2] == [6, 7], "the two rows of the one near-duplicate, then what has none"
    margins = [row["margin"] for row in post(server, "/api/rows", sort="margin")["rows"]]
    assert margins == sorted(margins) and margins[0] < 0.06


def test_moved_thresholds_are_what_curate_would_decide(
    server: ReviewServer, make_table: Callable[..., pa.Table]
) -> None:
    from dataclasses import replace

    from orbit4d.curate.rule_settings import Rules
    from orbit4d.curate.rules import decide, make_rules

    given = {"min_motion": 0.03, "max_growth": 1.45, "min_fit": None}
    page = post(server, "/api/rows", rules=given, limit=120)
    wanted = decide(make_table(30), replace(Rules(), **given))
    assert [row["verdict"] for row in page["rows"]] == wanted["verdict"].to_pylist()
    assert [row["reasons"] for row in page["rows"]] == wanted["reasons"].to_pylist()
    assert page["counts"]["accepted"] == wanted["verdict"].to_pylist().count("accepted")
    text = post(server, "/api/rules", rules=given)["yaml"]
    assert {"min_motion: 0.03", "max_growth: 1.45", "min_fit: null"} == set(text.splitlines())
    status, body = ask(server, "POST", "/api/rows", {"rules": {"min_motion": "x"}})
    assert status == 400 and b"must be a number" in body
    assert make_rules().min_motion == 0.014


def test_a_full_disk_is_said_and_changes_nothing(
    server: ReviewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    post(server, "/api/label", row=1, label="flag", reviewer="ada")
    with monkeypatch.context() as patch:
        patch.setattr("orbit4d.curate.labels.pq.write_table", full)
        status, body = ask(server, "POST", "/api/label", {"row": 1, "label": "accept", "reviewer": "ada"})
    assert status == 500 and b"No space left" in body
    assert post(server, "/api/clip", row=1, reviewer="ada")["label"] == "flag"
    status, body = ask(server, "POST", "/api/label", {"row": 1, "label": "accept", "reviewer": " "})
    assert status == 400 and b"reviewer" in body


def test_a_dataset_plays_its_own_frames(synthetic_dataset: Path, tmp_path: Path) -> None:
    for server in serve(synthetic_dataset, tmp_path / "d.parquet"):
        about = json.loads(ask(server, "GET", "/api/about")[1])
        page = post(server, "/api/rows", limit=60)
        assert page["total"] == 8 and about["frames"], "six assets, two of them with two actions"
        assert "motion_magnitude" in page["rows"][0]["measures"]
        row = page["rows"][3]
        status, data = ask(server, "GET", f"/frames/{row['row']}.webp")
        assert status == 200
        truth = read_clip(synthetic_dataset, row["uid"], row["action"], "front_view").pixels()
        with Image.open(io.BytesIO(data)) as shown:
            assert shown.n_frames == len(truth)
            for i, frame in enumerate(truth):
                shown.seek(i)
                pixels = np.asarray(shown.convert("RGBA"))
                seen = frame[..., 3] > 0
                assert (pixels[seen] == frame[seen]).all() and (pixels[..., 3] == frame[..., 3]).all()


def test_what_is_no_source_is_refused_in_one_line(tmp_path: Path, table_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    for source, said in (("none.parquet", "no such table"), ("x.txt", "run `orbit4d curate`")):
        done = CliRunner().invoke(command, [str(tmp_path / source)])
        assert isinstance(done.exception, InputError) and said in str(done.exception)
    book = LabelBook(tmp_path / "l.parquet")
    done = CliRunner().invoke(command, [str(table_path), "--labels", str(tmp_path / "l.parquet")])
    assert isinstance(done.exception, InputError) and "another review" in str(done.exception)
    book.close()
    assert default_labels("a/b.curated.parquet") == Path("a/b.labels.parquet")
    assert default_labels("s3://x/dataset/") == Path("dataset.labels.parquet")


def test_a_name_from_a_file_is_text_and_no_page(tmp_path: Path, make_table: Callable[..., pa.Table]) -> None:
    table = make_table(4)
    evil = pa.array(["<img src=x onerror=alert(1)>"] * 4)
    at = table.column_names.index("uid")
    write_table(table.set_column(at, table.schema.field("uid"), evil), str(tmp_path / "t.parquet"))
    for server in serve(tmp_path / "t.parquet", tmp_path / "l.parquet"):
        script = ask(server, "GET", "/review.js")[1].decode()
        assert "innerHTML" not in script and "insertAdjacentHTML" not in script
        assert post(server, "/api/rows")["rows"][0]["uid"].startswith("<img")
