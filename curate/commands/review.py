"""`orbit4d review`: a local page on which people look at clips and label them."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import click

from orbit4d.datasets.commands.options import Command, Place


@click.command("review", cls=Command, short_help="Look at clips in the browser and label them.")
@click.argument("source", metavar="TABLE|DATASET")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    default=None,
    help="File of labels (.parquet), begun or continued. Default: `NAME.labels.parquet` beside a local "
    "SOURCE, else in the current folder.",
)
@click.option("--reviewer", default=None, help="Who looks; can be changed on the page. Default: the login.")
@click.option("--preset", default=None, help="Rules to start from instead of the table's.")
@click.option("--rules", "rules_file", type=Place(as_text=True), default=None, help="YAML file of rules.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8087,
    show_default=True,
    help="Port of the page; the next free one where it is in use.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Interface to serve on. Beyond loopback whoever can connect can look and label.",
)
def command(
    source: str,
    labels: Path | None,
    reviewer: str | None,
    preset: str | None,
    rules_file: str | None,
    port: int,
    host: str,
) -> None:
    """Look at clips as playing previews and label them: accept, reject, flag, undo, all by keyboard.

    TABLE is what `orbit4d curate` wrote, DATASET a rendered dataset (path or URI). Every label is on the disk
    before the page continues. `orbit4d curate TABLE --labels FILE` takes them as the last word.

    \b
    Examples:
      orbit4d review assets.curated.parquet
      orbit4d review dataset --labels ours.labels.parquet --reviewer ada
    """
    from orbit4d.curate.labels import LabelBook
    from orbit4d.curate.review.opening import open_source
    from orbit4d.curate.review.queries import Review
    from orbit4d.curate.review.server import ReviewServer
    from orbit4d.curate.rules import make_rules
    from orbit4d.datasets.commands.interrupt import stop_request

    rules = make_rules(preset or "default", rules_file) if preset or rules_file else None
    opened = open_source(source, rules)
    # A table is named by its whole path: labels may move to another folder.
    about = source if "://" in source else os.path.abspath(source)
    book = LabelBook(labels or default_labels(source), about)
    try:
        review = Review(opened, book)
        server = ReviewServer(review, host, port, reviewer or _login())
        for note in review.notes:
            click.echo(f"note: {note}", err=True)
        if not server.loopback:
            click.echo(f"note: --host {host}: whoever can connect can look and label", err=True)
        click.echo(f"{review.n:,} clips, labels in {book.path}")
        click.echo(f"review at {server.url}  (Ctrl-C ends it; every label is saved)")
        with stop_request("usual") as stop:
            server.start()
            while not stop.wait(0.5):
                pass
        server.close()
    finally:
        book.close()


def default_labels(source: str) -> Path:
    """`x.curated.parquet` -> `x.labels.parquet` beside it; of a URI in the current folder."""
    place = source.rstrip("/")
    name = place.rpartition("/")[2].removesuffix(".parquet").removesuffix(".curated")
    folder = Path(".") if "://" in place else Path(place).parent
    return folder / f"{name or 'dataset'}.labels.parquet"


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "reviewer"
