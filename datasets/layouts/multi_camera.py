"""Exports of scenes of several cameras: planned and checked scene by scene, images in parallel, all or
nothing."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.exports.fitting import background_of, shortened
from orbit4d.datasets.exports.frame_rules import check_rule, frame_count
from orbit4d.datasets.exports.placing import files_in_order, placed
from orbit4d.datasets.exports.settings import CRF, ExportSettings
from orbit4d.datasets.images.over import over_bytes
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_members
from orbit4d.datasets.layouts import dnerf, n3dv, nerfstudio, syncammaster
from orbit4d.datasets.layouts.archives import Files, assets, count
from orbit4d.datasets.layouts.importing import BadFolder, Imported, listed, run_import
from orbit4d.datasets.layouts.scenes import Scene, camera_label, scenes_of
from orbit4d.datasets.operations.select import check_chosen, chosen
from orbit4d.datasets.sources.asset import clean_uid
from orbit4d.datasets.store.clip import Clip, sample_name
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.schema import row_clip
from orbit4d.datasets.store.writer import SHARD_BYTES
from orbit4d.datasets.videos.video import encode_mp4

#: What a layout makes of one camera's clip: name -> content. Videos come as a function of the clip.
ClipFiles = Callable[[Scene, int, Clip, ExportSettings, Callable[[Clip], bytes]], dict[str, bytes]]
#: Files about a scene; the last argument is what `measure` gave of each of its clips.
SceneFiles = Callable[[Scene, ExportSettings, Sequence[Any]], Mapping[str, bytes]]


@dataclass(frozen=True)
class Layout:
    """One multi-camera layout."""

    name: str
    fps: float
    """Rate of its videos where none is asked for."""
    check: Callable[[Scene, ExportSettings], None]
    """Raises InputError for a scene that the layout cannot say."""
    clip_files: ClipFiles
    scene_files: SceneFiles
    dataset_files: Callable[[Sequence[Scene], ExportSettings], Mapping[str, bytes]] | None = None
    """Files about all scenes."""
    measure: Callable[[Clip], Any] = lambda clip: None
    """What `scene_files` needs of a clip's images."""


LAYOUTS: dict[str, Layout] = {
    "syncamvideo-2024": Layout(
        "syncamvideo-2024", 15.0, syncammaster.check_2024, syncammaster.clip_2024, syncammaster.scene_2024
    ),
    "syncamvideo-2025": Layout(
        "syncamvideo-2025", 15.0, syncammaster.check_2025, syncammaster.clip_2025, syncammaster.scene_2025
    ),
    "multicamvideo": Layout(
        "multicamvideo", 15.0, syncammaster.check_moving, syncammaster.clip_2025, syncammaster.scene_2025
    ),
    "recammaster": Layout(
        "recammaster",
        15.0,
        syncammaster.check_moving,
        syncammaster.clip_2025,
        syncammaster.scene_2025,
        syncammaster.recammaster_table,
    ),
    "dnerf": Layout("dnerf", 24.0, dnerf.check, dnerf.clip_files, dnerf.scene_files),
    "n3dv": Layout("n3dv", 30.0, n3dv.check, n3dv.clip_files, n3dv.scene_files, measure=n3dv.depths),
}


def export_scenes(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    layout: str,
    settings: ExportSettings | None = None,
    where: str | None = None,
    split: str | None = None,
) -> tuple[int, list[str]]:
    """Write the chosen clips (see `orbit4d select`) in a layout of LAYOUTS; (clips, notes).

    `out` (path or URI) must not hold anything. InputError, before anything is written, for an unknown layout,
    no clip, and a scene that the layout cannot say.
    """
    if layout not in LAYOUTS:
        raise InputError(f"--format {layout}: known are {', '.join(LAYOUTS)}")
    form, settings = LAYOUTS[layout], settings or ExportSettings()
    rule = settings.frames or "all"
    check_rule(rule)
    index = Index(os.fspath(dataset))
    keep = chosen(index, where, split)
    check_chosen(index, keep, split)
    rows = keep.nonzero()[0].tolist()
    scenes = [_cut(scene, rule) for scene in scenes_of(index, rows)]
    for scene in scenes:
        form.check(scene, settings)
    dataset_files = form.dataset_files(scenes, settings) if form.dataset_files else {}
    with placed(os.fspath(out)) as (folder, _):
        with Progress("export", len(rows), "clip") as progress, ThreadPoolExecutor(usable_cores()) as pool:
            work = _work(index, scenes, form, settings)
            measured = []
            for fact in files_in_order(pool, work, folder, 2 * usable_cores()):
                measured.append(fact)
                progress.update()
        facts = iter(measured)
        files = [
            item
            for scene in scenes
            for item in form.scene_files(scene, settings, [next(facts) for _ in scene.clips]).items()
        ]
        for name, data in (*files, *dataset_files.items()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return len(rows), _notes(scenes, index, settings)


def _cut(scene: Scene, rule: str) -> Scene:
    clips = tuple(
        shortened(clip, frame_count(rule, len(clip.time), sample_name(clip.key))) for clip in scene.clips
    )
    return Scene(scene.number, scene.name, clips, scene.rows)


def _work(
    index: Index, scenes: Sequence[Scene], form: Layout, settings: ExportSettings
) -> Iterator[tuple[Any, ...]]:
    for scene in scenes:
        for place in range(len(scene.clips)):
            yield _clip_files, index, scene, place, form, settings


def _clip_files(
    index: Index, scene: Scene, place: int, form: Layout, settings: ExportSettings
) -> tuple[dict[str, bytes], Any]:
    row = index.row(scene.rows[place])
    clip = shortened(row_clip(row, read_members(index.shard_store, row)), len(scene.clips[place].time))

    def video(some: Clip) -> bytes:
        # One background a scene: its cameras see the same ground.
        frames = over_bytes(some.pixels(), background_of(settings, scene.name))
        return encode_mp4(frames, settings.fps or form.fps, None if settings.exact else CRF)

    return form.clip_files(scene, place, clip, settings, video), form.measure(clip)


def _notes(scenes: Sequence[Scene], index: Index, settings: ExportSettings) -> list[str]:
    dropped = sum(
        index.row(row, ["n_frames"])["n_frames"] - len(clip.time)
        for scene in scenes
        for row, clip in zip(scene.rows, scene.clips)
    )
    notes = [f"--frames {settings.frames} drops {dropped} frames"] if dropped else []
    passes = sorted({name for scene in scenes for clip in scene.clips for name in clip.passes})
    if passes:
        notes.append(f"no place for the passes {', '.join(passes)}; --format nerfstudio has one")
    return notes


# In ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """How a layout is read."""

    locate: Callable[[Sequence[str]], tuple[str, str] | None]
    """(scene, file within it) of a path's parts."""
    clips_of: Callable[[str, Mapping[str, bytes]], list[Clip]]
    """Clips of a scene's files; raises BadFolder."""


_SYNCAM = Reader(syncammaster.locate, syncammaster.clips_of)
READERS: dict[str, Reader] = {
    **dict.fromkeys(("syncamvideo-2024", "syncamvideo-2025", "multicamvideo", "recammaster"), _SYNCAM),
    "dnerf": Reader(dnerf.locate, dnerf.clips_of),
    "n3dv": Reader(n3dv.locate, n3dv.clips_of),
    "nerfstudio": Reader(nerfstudio.locate, nerfstudio.clips_of),
}


def import_scenes(
    source: str | os.PathLike[str] | Sequence[str],
    out: str | os.PathLike[str],
    layout: str,
    captions: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Imported:
    """Import scenes of a layout of READERS, folders or tars (read as streams), into a dataset at `out`.

    What `orbit4d export` wrote comes back as the clips it was, but for what a video loses; of published sets
    each scene becomes an asset, each camera an orbit. Broken scenes become rejections. Run again, it resumes.
    InputError for an unknown layout, or a source that holds no scene of it.
    """
    if layout not in READERS:
        raise InputError(f"--from {layout}: known are {', '.join(READERS)}")
    reader, sources = READERS[layout], listed(source)
    owners = _owners(sources, reader)
    texts = _texts(sources, reader) if layout == "recammaster" else {}

    def locate(parts: Sequence[str]) -> tuple[str, str, str] | None:
        found = reader.locate(parts)
        if found is None:
            return None
        scene, file = found
        return owners.get(scene, clean_uid(scene.replace("/", "_"))), scene, file

    def build(asset: str, files: Files) -> tuple[list[Clip], list[Rejection]]:
        clips: list[Clip] = []
        refused: list[Rejection] = []
        for scene, content in files.items():
            try:
                found = reader.clips_of(scene, content)
                wrong = next((clip.uid for clip in found if clip.uid != asset), None)
                if wrong is not None:
                    raise BadFolder("bad_file:content", f"{scene}: holds clips of {wrong} and {asset}")
                clips += [_captioned(clip, texts.get((scene, camera_label(clip)), "")) for clip in found]
            except BadFolder as error:
                refused.append(Rejection(asset, scene, "import", error.code, str(error)))
        return clips, refused

    return run_import(sources, out, {"imported": layout}, locate, build, captions, shard_bytes)


def _captioned(clip: Clip, text: str) -> Clip:
    return replace(clip, caption=text) if text and not clip.caption else clip


def _owners(sources: Sequence[str], reader: Reader) -> dict[str, str]:
    """Scene -> uid, where an export of ours says it: the scenes of an asset are staged together."""

    def notes(parts: Sequence[str]) -> tuple[str, str, str] | None:
        found = reader.locate(parts)
        named = found is not None and parts[-1] in (syncammaster.NEIGHBOUR, "transforms.json")
        return (found[0], "", parts[-1]) if found is not None and named else None

    here = [source for source in sources if count([source], notes)]
    owners = {}
    for scene, files in assets(here, notes) if here else ():
        for data in files[""].values():
            uid = _first_uid(data)
            if uid is not None:
                owners[scene] = uid
    return owners


def _first_uid(data: bytes) -> str | None:
    """The uid of the first clip that a neighbour records."""
    try:
        record = json.loads(data)
        clips = record["orbit4d"]["clips"] if "orbit4d" in record else record["clips"]
        first = next(iter(clips.values() if isinstance(clips, dict) else clips))
        return str(first.get("clip", first)["uid"])
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None


def _texts(sources: Sequence[str], reader: Reader) -> dict[tuple[str, str], str]:
    """(scene, camera) -> caption of ReCamMaster's metadata.csv."""

    def tables(parts: Sequence[str]) -> tuple[str, str, str] | None:
        return ("", "", "/".join(parts)) if parts[-1] == "metadata.csv" else None

    found = {}
    here = [source for source in sources if count([source], tables)]
    for _, files in assets(here, tables) if here else ():
        for data in files[""].values():
            for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig", "replace"))):
                place = reader.locate(["train", *(row.get("file_name") or "").split("/")])
                if place is not None:
                    label = place[1].rpartition("/")[2].removesuffix(".mp4")
                    found[place[0], label] = (row.get("text") or "").strip()
    return found
