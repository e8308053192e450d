"""make bench-review: how long the page of `orbit4d review` waits, over a table of 100,000 clips.

Requests go over the loopback to a server in this process: turning pages, sorting by every kind of column,
filtering by an expression, moving a threshold, opening a clip, an image, and a label, which is on the disk
when it is answered. Prints a table and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from curate import wide_table
from orbit4d.curate.labels import LabelBook
from orbit4d.curate.review.opening import open_source
from orbit4d.curate.review.queries import Review
from orbit4d.curate.review.server import ReviewServer
from orbit4d.curate.rules import decide
from orbit4d.curate.tables import write_table


def preview() -> bytes:
    """A strip of three images of noise, about as large as one of a rendered asset."""
    pixels = (np.random.default_rng(0).random((128, 384, 3)) * 60).astype(np.uint8)
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "WEBP", quality=30)
    return memory.getvalue()


def questions(url: str, rng: np.random.Generator, n: int) -> dict[str, Callable[[], bytes]]:
    """What is asked, each time again."""

    def post(path: str, **asked: object) -> bytes:
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(url + path, json.dumps(asked).encode(), head)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def get(path: str) -> bytes:
        with urllib.request.urlopen(url + path, timeout=60) as answer:
            return answer.read()

    names = [
        "motion_geometry",
        "coverage_fit",
        "n_triangles",
        "uid",
        "license",
        "seconds",
        "margin",
        "action",
    ]
    return {
        "page": lambda: post("api/rows", start=int(rng.integers(n)), limit=60),
        "sort": lambda: post("api/rows", sort=str(rng.choice(names)), descending=bool(rng.integers(2))),
        "filter": lambda: post("api/rows", where=f"coverage_fit < {rng.random():.4f} and union_growth > 0.1"),
        "search": lambda: post("api/rows", search=f"asset{rng.integers(1000)}"),
        "threshold": lambda: post(
            "api/rows", rules={"min_motion": round(float(rng.random()), 4)}, sort="margin", focus="min_motion"
        ),
        "clip": lambda: post("api/clip", row=int(rng.integers(n))),
        "image": lambda: get(f"preview/{rng.integers(n)}.webp"),
        "label": lambda: post(
            "api/label", row=int(rng.integers(n)), label=str(rng.choice(["accept", "reject"])), reviewer="ada"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--labelled", type=int, default=0, help="labels that are there already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orbit4d-bench-") as name:
        path = Path(name) / "wide.parquet"
        write_table(decide(wide_table(args.rows, preview())), str(path))
        started = time.perf_counter()
        book = LabelBook(Path(name) / "wide.labels.parquet")
        review = Review(open_source(str(path)), book)
        server = ReviewServer(review, port=0)
        server.start()
        opening = time.perf_counter() - started
        result: dict[str, object] = {"bench": "review", "rows": args.rows, "open_seconds": opening}
        print(f"{args.rows:,} clips, opened in {opening:.1f} s")
        fill(book, review, args.labelled)
        print(f"{'request':<12} median ms   95 %   worst")
        for kind, ask in questions(server.url, np.random.default_rng(1), args.rows).items():
            spent = []
            for _ in range(args.times):
                started = time.perf_counter()
                ask()
                spent.append((time.perf_counter() - started) * 1e3)
            middle, high, worst = (float(np.quantile(spent, q)) for q in (0.5, 0.95, 1.0))
            print(f"{kind:<12} {middle:9.1f} {high:6.1f} {worst:7.1f}", flush=True)
            result[kind] = {"median_ms": middle, "p95_ms": high, "worst_ms": worst}
        server.close()
        book.close()
    print(json.dumps(result))


def fill(book: LabelBook, review: Review, count: int) -> None:
    """Labels that were given before, without writing the file for each of them."""
    from orbit4d.curate.labels import Label

    for row in range(count):
        uid, index = review.table["uid"][row].as_py(), review.table["action_index"][row].as_py()
        label = Label(uid, "", index, "", "bob").said("accept", "accepted", ())
        book._rows[(*label.clip, "bob")] = label


if __name__ == "__main__":
    main()
