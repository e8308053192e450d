"""Where the actors of a prompt would stand: read from the assets' own skeletons, nothing fitted or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orbit4d.compose.cli.parts import metres_for
from orbit4d.compose.library.casting import Cast as Picked
from orbit4d.compose.spec import Spec
from orbit4d.datasets.core.errors import OrbitError

#: Seconds of a film whose prompt names none: 48 frames at 24 a second.
SECONDS = 2.0


def places(spec: Spec, casts: Sequence[Picked], seed: int) -> tuple[list[dict[str, Any]], list[str]]:
    """(a row for every individual, lines of what had to give), in metres on the ground.

    Without rows, and with a line that says why, where an asset is not there or cannot be read here.
    """
    from orbit4d.compose.characters.concepts import clip_of
    from orbit4d.compose.characters.gltf_rig import read_gltf
    from orbit4d.compose.placement.planning import Cast, plan

    found = []
    try:
        for one in casts:
            if (
                Path(one.entry.file).suffix.lower() not in (".glb", ".gltf")
                or not Path(one.entry.file).is_file()
            ):
                return [], [f"places    not known: {one.entry.uid[:60]} has no glTF file here"]
            character = read_gltf(one.entry.file)
            names = [motion.name for motion in character.rig.motions]
            name = one.entry.action
            if name not in names:
                name = names[min(one.entry.action_index, len(names) - 1)]
            actor = spec.actors[one.actor]
            found.append(Cast(actor.id, clip_of(character, name), metres_for(actor, one.entry)))
        placed = plan(spec, found, spec.duration_s or SECONDS, seed)
    except OrbitError as error:
        return [], [f"places    not known: {error}"[:300]]
    rows = [
        {"actor": one.actor, "member": one.member, "metres": round(one.cast.metres, 3),
         "speed_mps": round(one.speed, 3),
         "start": [round(float(v), 3) for v in one.track.points[0]],
         "end": [round(float(v), 3) for v in one.track.points[-1]]}
        for one in placed.placed
    ]  # fmt: skip
    return rows, [*placed.notes, *placed.path_notes]


def place_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each individual."""
    lines = []
    for row in rows:
        start, end = ("({:.2f}, {:.2f})".format(*row[name][:2]) for name in ("start", "end"))
        way = (
            f"stands at {start}"
            if row["speed_mps"] == 0
            else f"from {start} to {end}, {row['speed_mps']:g} m/s"
        )
        lines.append(f"place {row['actor']:<4}{row['metres']:g} m tall, {way}")
    return lines
