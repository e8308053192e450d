"""Who made what a film shows: one row per concept used, with a line that is ready to print."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Literal

from orbit4d.compose.library.catalogue import UNKNOWN, Entry
from orbit4d.datasets.core.atomic import write_text

Role = Literal["scene", "object", "motion", "model"]


@dataclass(frozen=True)
class Credit:
    """A row of credits.csv; `actor` is an actor's id, '' for the scene, `changes` what was done to it."""

    role: Role
    actor: str
    uid: str
    file_sha256: str
    action: str
    licence: str
    author: str
    source_url: str
    changes: str
    attribution: str


def credit(role: Role, actor: int | None, entry: Entry, changes: str = "fitted as Gaussians") -> Credit:
    """The row of an asset that is used; an unknown licence is written `unknown`."""
    licence = entry.licence or UNKNOWN
    title = entry.caption or entry.uid
    parts = [f'"{title}" ({entry.uid})', f"by {entry.author}" if entry.author else "by an unknown author"]
    parts.append("licence unknown" if licence == UNKNOWN else f"licensed {licence}")
    line = ", ".join([*parts, *([entry.source_url] if entry.source_url else []), changes])
    return Credit(
        role=role,
        actor="" if actor is None else str(actor),
        uid=entry.uid,
        file_sha256=entry.file_sha256,
        action=entry.action if role in ("object", "motion") else "",
        licence=licence,
        author=entry.author,
        source_url=entry.source_url,
        changes=changes,
        attribution=" ".join(line.split()),
    )


def made_credit(role: Role, uid: str, licence: str, changes: str) -> Credit:
    """The row of a scene or a model, which no library lists; `changes` says what it was used for."""
    said = {UNKNOWN: "licence unknown", "generated": ""}.get(licence, f"licensed {licence}")
    line = ", ".join(part for part in (uid, said, changes) if part)
    return Credit(role, "", uid, "", "", licence, "", "", changes, " ".join(line.split()))


def credits_text(rows: Iterable[Credit]) -> str:
    """credits.csv of some rows, each once."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([field.name for field in fields(Credit)])
    writer.writerows(astuple(row) for row in dict.fromkeys(rows))
    return out.getvalue()


def write_credits(path: str | os.PathLike[str], rows: Iterable[Credit]) -> None:
    """Write credits.csv at once."""
    write_text(path, credits_text(rows))


def unknown_licences(rows: Sequence[Credit]) -> list[str]:
    """Uids whose licence nobody names, for the last lines of a run."""
    return list(dict.fromkeys(row.uid for row in rows if row.licence == UNKNOWN))
