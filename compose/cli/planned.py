"""What a film would be: its spec, who would play whom, where everybody would stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orbit4d.compose.director.chat import ChatSettings
from orbit4d.compose.director.directing import Directed, direct, spelling_lines
from orbit4d.compose.library.casting import Cast, cast, credits_of
from orbit4d.compose.library.credits import unknown_licences
from orbit4d.compose.spec import Spec
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import OrbitError

if TYPE_CHECKING:
    from orbit4d.compose.characters.concepts import Clip
    from orbit4d.compose.cli.parts import Wanted


def show_plan(wanted: Wanted, out: Path | None, chat: ChatSettings, as_json: bool = False) -> None:
    """Print the plan of a film. Raises what `compose PROMPT` would raise before it fits anything."""
    from orbit4d.compose.cli.parts import refuse_length
    from orbit4d.compose.cli.production import checked, refuse_other, with_scene

    if out is not None:
        refuse_other(out, wanted)
    library, encoder = checked(wanted) if wanted.libraries else (None, None)
    directed = direct(wanted.prompt, wanted.director, chat)
    directed = replace(directed, spec=with_scene(directed.spec, wanted))
    refuse_length(directed.spec, wanted)
    casts: list[Cast] = []
    dropped: dict[str, int] = {}
    stand: list[dict[str, Any]] = []
    gave: list[str] = []
    if library is not None:
        casts, dropped = cast(directed.spec, library, wanted.strict, encoder), dict(library.dropped)
        stand, gave = places(directed.spec, casts, wanted)
    lines = [*last_lines(directed, casts, dropped), *place_lines(stand), *gave]
    if as_json:
        click.echo(json.dumps({**plan_json(directed, casts), "places": stand}, indent=1, ensure_ascii=False))
        for line in lines:
            click.echo(line, err=True)
        return
    click.echo(directed.spec.as_text(), nl=False)
    for line in lines:
        click.echo(line)


def plan_json(directed: Directed, casts: list[Cast]) -> dict[str, Any]:
    """Spec, cast and corrections as a plain dict."""
    return {
        "spec": directed.spec.as_json(),
        "director": directed.who,
        "corrections": [list(pair) for pair in directed.corrections],
        "cast": [one.as_json() for one in casts],
        "notes": list(directed.notes),
    }


def last_lines(directed: Directed, casts: list[Cast], dropped: dict[str, int]) -> list[str]:
    """What a run says at its end: who directed, who plays what, which words were not used."""
    lines = [f"director  {directed.who}", *(f"          {note}" for note in directed.notes)]
    lines += spelling_lines(directed)
    for one in casts:
        lines.append(f"actor {one.actor:<4}{one.line(directed.spec.actors[one.actor])}")
    if not casts:
        lines += [f"actor {a.id:<4}no motion named: idle" for a in directed.spec.actors if not a.action_given]
    if directed.spec.unused:
        words = ", ".join(f'"{printable(word, 40)}"' for word in directed.spec.unused)
        lines.append(f"unused    {words}")
    for name, n in sorted(dropped.items()):
        lines.append(f"left out  {n} assets under {printable(name, 60)}")
    unknown = unknown_licences(credits_of(casts))
    if unknown:
        lines.append(f"licence   unknown of {', '.join(printable(uid, 60) for uid in unknown)}")
    return lines


def places(spec: Spec, casts: Sequence[Cast], wanted: Wanted) -> tuple[list[dict[str, Any]], list[str]]:
    """(a row for every individual, lines of what had to give), in metres on the ground.

    Without rows, and with a line that says why, where an asset is not there or cannot be read here. The line
    of `then` says what is not shown.
    """
    from orbit4d.compose.characters.concepts import clip_of
    from orbit4d.compose.characters.gltf_rig import read_gltf
    from orbit4d.compose.cli.parts import gaits_of, metres_for, not_shown, sized
    from orbit4d.compose.director.scenes import given_scene
    from orbit4d.compose.placement import planning

    found = []
    paces: dict[int, list[Clip]] = {}
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
            others = (other for other in gaits_of(one.entry.uid, names).values() if other != name)
            paces[one.actor] = [clip_of(character, other) for other in others]
            found.append(planning.Cast(actor.id, clip_of(character, name), metres_for(actor, one.entry)))
        notes = not_shown(spec)
        film = sized(wanted, spec, found, notes)
        scene = given_scene(wanted.scene, wanted.seed)
        placed = planning.plan(spec, found, film.frames / film.fps, wanted.seed, scene, paces.__getitem__)
    except OrbitError as error:
        return [], [f"places    not known: {error}"[:300]]
    rows = [
        {"actor": one.actor, "member": one.member, "metres": round(one.cast.metres, 3),
         "speed_mps": round(one.speed, 3),
         "start": [round(float(v), 3) for v in one.track.points[0]],
         "end": [round(float(v), 3) for v in one.track.points[-1]]}
        for one in placed.placed
    ]  # fmt: skip
    return rows, [*placed.notes, *placed.path_notes, *notes]


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
