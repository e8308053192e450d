"""A film from a sentence: spec, retrieval, concepts, places, refinement, composition, metrics, credits."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from orbit4d.compose.characters.concepts import Clip
from orbit4d.compose.cli.measuring import film_metrics
from orbit4d.compose.cli.options import encoder_of
from orbit4d.compose.cli.parts import (
    Part,
    Wanted,
    forget_concept,
    joined,
    look_before,
    metres_for,
    not_shown,
    other_paces,
    played,
    refuse_length,
    sized,
)
from orbit4d.compose.cli.writing import (
    as_before,
    credits_of_film,
    keep_places,
    kept_gains,
    relit,
    write_composition,
)
from orbit4d.compose.director.chat import ChatDirector, ChatSettings
from orbit4d.compose.director.directing import direct, spelling_lines
from orbit4d.compose.director.on_ground import place_all
from orbit4d.compose.director.placing import ChatPlacer
from orbit4d.compose.director.scenes import given_scene, ground_of, scene_line
from orbit4d.compose.library.casting import cast
from orbit4d.compose.library.catalogue import Library
from orbit4d.compose.library.credits import Credit, unknown_licences, write_credits
from orbit4d.compose.library.retrieval import Encoder
from orbit4d.compose.placement.planning import Cast, Plan, plan
from orbit4d.compose.placement.refinement import refined
from orbit4d.compose.spec import Setting, Spec
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError, OrbitError
from orbit4d.recon4d.composition import FILE, Composition, load_composition
from orbit4d.recon4d.filming import film_directed
from orbit4d.recon4d.raster.threads import alone

#: What a run says of who wrote its spec, where the spec is all that is known.
WROTE = {
    "rules": "rules (grammar; no language model ran)",
    "chat": "chat (the spec of an earlier run)",
    "recorded": "recorded (no language model ran)",
}
#: Options that came later.
LATER = ("encoder", "refine_model", "tau_units", "depth_model", "relight", "rig_moment")


def with_scene(spec: Spec, wanted: Wanted) -> Spec:
    """The spec with the scene that --scene names."""
    name = ground_of(wanted.scene)
    return spec if name is None else replace(spec, scene=Setting(name))


def produce(
    wanted: Wanted, out: Path, cache: Path | None = None, chat: ChatSettings | None = None,
    refresh: bool = False,
) -> list[str]:  # fmt: skip
    """Make the film of a prompt in `out`; returns what is to be said at the end, line by line.

    `refresh` makes it and its concepts anew where they are there. `chat` says how an endpoint is asked,
    where it directs; its replies are kept in OUT/director/.

    Raises InputError, one line, for what cannot be honoured, WorkError where work fails.
    """
    began = time.monotonic()
    refuse_other(out, wanted)
    if (out / FILE).is_file() and (out / "film.mp4").is_file() and not refresh:
        return [f"{out}: already finished"]
    library, encoder = checked(wanted)
    done = direct(wanted.prompt, wanted.director, chat, out / "director" / "replies.jsonl")
    spec = with_scene(done.spec, wanted)
    refuse_length(spec, wanted)
    chosen = cast(spec, library, wanted.strict, encoder)
    look_before(chosen)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "request.json", asdict(wanted))
    write_json(out / "spec.json", spec.as_json())
    kept = cache or out / "concepts"
    if refresh:
        shutil.rmtree(out / "concepts", ignore_errors=True)
        for picked in chosen:
            forget_concept(picked, kept)
    parts = [played(spec, picked, library, kept, wanted.rig_moment) for picked in chosen]
    lines = assemble(spec, parts, wanted, out, kept, asked=done.chat)
    lines[0] = f"director  {done.who}"
    lines[1:1] = [*(f"          {note}" for note in done.notes), *spelling_lines(done)]
    frames = len(load_composition(out).shots)
    lines += [f"film {out / 'film.mp4'}: {frames} frames in {time.monotonic() - began:.1f} s in all"]
    return lines


def checked(wanted: Wanted) -> tuple[Library, Encoder | None]:
    """The library and the encoder, once everything that needs no director is known to be there.

    Raises InputError, before anything is asked, written or fitted.
    """
    if wanted.depth_model and wanted.director == "rules":
        raise InputError(
            "--depth-model: lifts what a chat director says of an image, and --director rules places on the "
            "ground; leave it out, or take --director chat or recorded:FILE"
        )
    ground_of(wanted.scene)
    library = joined(wanted)
    if wanted.refine == "sd15":
        _prior(wanted.refine_model)
    if wanted.depth_model:
        from transformers import AutoConfig

        from orbit4d.model.guided.models.video_model import hub

        with hub(wanted.depth_model, "--depth-model"):
            AutoConfig.from_pretrained(wanted.depth_model)
    return library, encoder_of(wanted.encoder)


def refuse_other(out: Path, wanted: Wanted) -> None:
    """InputError where `out` holds another run, or other files."""
    if out.is_file():
        raise InputError(f"{out}: is a file; give a folder as --out")
    path = out / "request.json"
    if path.is_file():
        try:
            held = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise InputError(f"{path}: is damaged; give an empty or new folder as --out") from None
        # A run of a version that knew fewer options had their defaults.
        held = {
            **{key: getattr(Wanted, key) for key in LATER},
            **held,
        }
        asked = json.loads(json.dumps(asdict(wanted)))
        if held != asked:
            key = next((k for k, v in asked.items() if held.get(k) != v), "prompt")
            raise InputError(f"{out}: holds a film made with another {key}; give another --out")
    elif out.is_dir() and any(entry.name != "director" for entry in out.iterdir()):
        raise InputError(f"{out}: holds other files; give an empty or new folder as --out")


def assemble(
    spec: Spec,
    parts: Sequence[Part],
    wanted: Wanted,
    out: Path,
    cache: Path,
    kept: Path | None = None,
    but: int | None = None,
    anew: bool = False,
    asked: ChatDirector | None = None,
) -> list[str]:
    """Place, refine, compose, measure, film; the lines that say how it went.

    `kept` is a film whose places are taken, but for what the actor `but` changes in its own, which with
    `anew` is placed like one of a new film; `asked` is the director that answers where everybody stands,
    None where the rules plan it.
    """
    parts = [as_before(part, kept, but) for part in parts]
    casts = [_cast(spec, part) for part in parts]
    bounds = not_shown(spec)
    wanted = sized(wanted, spec, casts, bounds)
    seconds = wanted.frames / wanted.fps
    by_actor = {part.picked.actor: part for part in parts}

    def kin(actor: int) -> list[Clip]:
        return other_paces(by_actor[actor]) if kept is None or actor == but else []

    placed = plan(spec, casts, seconds, wanted.seed, given_scene(wanted.scene, wanted.seed), kin)
    clips = {one.actor: one.cast.clip for one in placed.placed}
    parts = [replace(part, clip=clips[part.picked.actor]) for part in parts]
    if asked is not None:
        bounds += _asked_places(asked, spec, placed, wanted)
    if kept is not None:
        if anew and wanted.refine == "geometry":
            refined(placed, wanted.tau_units)
        keep_places(placed, kept, but, anew)
    elif wanted.refine == "sd15":
        bounds += _by_prior(spec, parts, placed, wanted)
    elif wanted.refine == "geometry":
        bounds += refined(placed, wanted.tau_units)
    gains: dict[int, tuple[float, float, float]] = {}
    if wanted.relight:
        gains, said = relit(parts, placed, wanted.scene == "none", kept_gains(kept, but))
        bounds += said
    write_composition(spec, parts, placed, wanted, out, cache, kept, gains)
    film = load_composition(out)
    _, speed = filmed(film, out)
    metrics = film_metrics(placed, {p.picked.actor: p.character for p in parts}, film)
    write_json(out / "metrics.json", {**metrics, "frames_per_second": speed})
    credits = credits_of_film(parts, placed, wanted)
    write_credits(out / "credits.csv", credits)
    refined_by = {"geometry": "geometry (no diffusion model ran)", "none": "nothing"}.get(
        wanted.refine, f"sd15 ({wanted.refine_model}; score distillation)"
    )
    if kept is not None:
        refined_by = "nothing (places are those of the film before)"
    return [
        *_said(spec, parts),
        *scene_line(wanted.scene, wanted.seed),
        *placed.notes,
        *placed.path_notes,
        *bounds,
        *_closing(spec, credits, refined_by),
    ]


@cache
def _prior(spec: str) -> Any:
    """The score model of --refine sd15; InputError, one line, where there is none."""
    from orbit4d.model.distill import load_score

    try:
        return load_score(spec, "2d")
    except (InputError, ImportError) as error:
        raise InputError(f"--refine sd15: {printable(error, 200)}; or take --refine geometry") from None


def _by_prior(spec: Spec, parts: Sequence[Part], placed: Plan, wanted: Wanted) -> list[str]:
    """Refine a plan by a text-to-image model, each actor by its own words."""
    from orbit4d.compose.placement.scored import Prior, refined_by_score

    model = _prior(wanted.refine_model)
    scenes, priors = {}, {}
    for part in parts:
        actor = spec.actors[part.picked.actor]
        words = f"{actor.object} {actor.action_text or actor.action}"
        priors[actor.id] = Prior(model, model.encode, model.condition(prompt=words))
        scenes[actor.id] = part.concept.scene
    return refined_by_score(placed, scenes, priors, int(model.size[0]), wanted.seed, units=wanted.tau_units)


def _asked_places(asked: ChatDirector, spec: Spec, placed: Plan, wanted: Wanted) -> list[str]:
    """Put everybody where the director says; the line of who placed. `chat,rules` may fall back."""
    before = [(one.cast, one.track, one.going, one.speed) for one in placed.placed]
    notes = list(placed.path_notes)
    known = len(asked.notes)
    try:
        place_all(ChatPlacer(asked, spec), spec, placed, wanted.depth_model)
    except OrbitError as error:
        if wanted.director != "chat,rules":
            raise
        for one, (held, track, going, speed) in zip(placed.placed, before, strict=True):
            one.cast, one.track, one.going, one.speed = held, track, going, speed
        placed.path_notes[:] = notes
        return [f"places    rules (chat placed nobody: {printable(error, 180)})"]
    who = "recorded" if asked.name == "recorded" else "chat"
    return [f"places    {who} (scale, start, end and path of each actor)", *asked.notes[known:]]


def _said(spec: Spec, parts: Sequence[Part]) -> list[str]:
    """Who wrote the spec, and who plays whom."""
    lines = [f"director  {WROTE[spec.director]}"]
    for part in parts:
        actor = spec.actors[part.picked.actor]
        lines.append(f"actor {actor.id:<4}{part.picked.line(actor, part.clip.action)}")
        lines += [part.note] if part.note else []
    return lines


def _closing(spec: Spec, credits: Sequence[Credit], refined_by: str) -> list[str]:
    """Words without effect, what refined, whose licence nobody knows."""
    lines = []
    if spec.unused:
        lines.append("unused    " + ", ".join(json.dumps(word) for word in spec.unused))
    lines.append(f"refined   {refined_by}")
    unknown = [printable(uid, 60) for uid in unknown_licences(credits)]
    lines += [f"licence   unknown of {', '.join(unknown)}"] if unknown else []
    return lines


def _cast(spec: Spec, part: Part) -> Cast:
    actor = spec.actors[part.picked.actor]
    return Cast(actor.id, part.clip, metres_for(actor, part.picked.entry))


def filmed(film: Composition, out: Path) -> tuple[Any, float]:
    """Frames of film.mp4, and how many a second were drawn and written after the first, which compiles."""
    with alone():
        film.render(*film.shots[0])
        began = time.monotonic()
        frames = film_directed(film, out, out / "film.mp4")
    return frames, round(len(frames) / (time.monotonic() - began), 2)
