"""A damaged scene folder, or numbers that cannot be drawn: refused by name, in one line, everywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.app.export import command as export_command
from orbit4d.datasets import InputError
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import OrbitError, WorkError
from orbit4d.recon4d import Scene, load_scene, read_splats, reconstruct
from orbit4d.recon4d import film as shoot
from orbit4d.recon4d.export.formats import FORMATS, export_scene
from orbit4d.recon4d.gaussians import load_ply, save_ply
from orbit4d.recon4d.viewer.scene_viewer import Viewer

NAN, INF = float("nan"), float("inf")
#: What is done to a tensor's third row, and what is said of it.
SPOILS = {
    "means": (NAN, "means that are no finite numbers"),
    "log_scales": (INF, "log scales that are no finite"),
    "logits": (NAN, "logits that are no finite"),
    "colors": (-INF, "colors that are no finite"),
    "quats": (0.0, "rotations of length 0"),
}


@pytest.fixture
def folder(tiny_scene: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_scene, tmp_path / "scene"))


def spoiled(scene: Scene, name: str) -> Scene:
    tensor = scene.gaussians.tensors()[name].clone()
    tensor[2] = SPOILS[name][0]
    return replace(scene, gaussians=replace(scene.gaussians, **{name: tensor}))


@pytest.mark.parametrize("name", SPOILS)
def test_a_folder_with_numbers_that_are_none_is_refused(folder: Path, name: str) -> None:
    scene = spoiled(load_scene(folder), name)
    if name == "quats":  # `save_ply` writes unit rotations, and 0 / 0 for it
        assert scene.fault() is not None
    save_ply(scene.gaussians, folder / "canonical.ply")
    with pytest.raises(WorkError, match=rf"canonical\.ply: {SPOILS[name][1]}.*1 of \d+"):
        load_scene(folder)
    with pytest.raises(InputError, match=SPOILS[name][1]):
        read_splats(folder / "canonical.ply")


@pytest.mark.parametrize("format", FORMATS)
def test_every_exporter_refuses_them(tiny_scene: Path, tmp_path: Path, format: str) -> None:
    whole = load_scene(tiny_scene)
    for name, (_, said) in SPOILS.items():
        with pytest.raises(InputError, match=said):
            export_scene(spoiled(whole, name), tmp_path / "out", format)
    with torch.no_grad():
        field = next(p for p in whole.field.parameters())
        field.view(-1)[0] = NAN
    with pytest.raises(InputError, match=r"field: .* not finite"):
        export_scene(whole, tmp_path / "out", format)
    assert not list(tmp_path.iterdir())


def test_film_and_view_refuse_them(tiny_scene: Path, tmp_path: Path) -> None:
    bad = spoiled(load_scene(tiny_scene), "means")
    with pytest.raises(InputError, match="gaussians: means"):
        shoot(bad, tmp_path / "a.mp4", frames=2, size=32)
    with pytest.raises(InputError, match="gaussians: means"):
        Viewer(bad)
    assert not list(tmp_path.iterdir())


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change a JSON file of a scene."""

    def work(folder: Path) -> None:
        record = json.loads((folder / name).read_text())
        made = change(record)
        (folder / name).write_text(json.dumps(record if made is None else made))

    return work


def cut(name: str, share: float) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return work


def first_frame(key: str, value: Any) -> Callable[[Path], None]:
    return edit("cameras.json", lambda record: record["frames"][0].update({key: value}))


def world_of(scale: float) -> Callable[[Path], None]:
    return edit("scene.json", lambda record: record.update(world={"scale": scale, "centre": [0, 0, 0]}))


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a list": ("scene.json: a list", edit("scene.json", lambda r: [])),
    "a number": ("scene.json: a int", edit("scene.json", lambda r: 3)),
    "a text": ("scene.json: a str", edit("scene.json", lambda r: "scene")),
    "cut": (r"scene\.json", cut("scene.json", 0.4)),
    "empty": (r"scene\.json", cut("scene.json", 0)),
    "binary": (r"scene\.json", lambda f: (f / "scene.json").write_bytes(b"\xff\xfe\x00")),
    "another version": ("format 7", edit("scene.json", lambda r: r.update(format=7))),
    "no version": ("format None", edit("scene.json", lambda r: r.pop("format") and None)),
    "eps2d is text": ("damaged scene", edit("scene.json", lambda r: r.update(eps2d="soft"))),
    "eps2d is negative": ("scene.json: .*eps2d -1", edit("scene.json", lambda r: r.update(eps2d=-1))),
    "a world of nothing": ("damaged scene", edit("scene.json", lambda r: r.update(world=[]))),
    "a world without size": ("scene.json: scale 0", world_of(0)),
    "a world of NaN": ("scene.json: scale nan", world_of(NAN)),
    "metrics are a list": ("metrics.json: a list", edit("metrics.json", lambda r: [])),
    "cameras are a list": ("cameras.json: a list", edit("cameras.json", lambda r: [])),
    "cameras without frames": ("damaged scene", edit("cameras.json", lambda r: r.pop("frames") and None)),
    "a camera of NaN": (r"cameras\.json", first_frame("fl_x", NAN)),
    "a camera of infinite width": (r"cameras\.json", first_frame("w", INF)),
    "a pose of NaN": (r"cameras\.json", first_frame("transform_matrix", np.full((4, 4), NAN).tolist())),
    "a pose of three": (r"cameras\.json", first_frame("transform_matrix", [1, 2, 3])),
    "a time outside": (r"cameras\.json", first_frame("time", 1.5)),
    "a time of text": (r"cameras\.json", first_frame("time", "now")),
    "splats cut": (r"canonical\.ply", cut("canonical.ply", 0.7)),
    "splats gone": (r"canonical\.ply", lambda f: (f / "canonical.ply").unlink()),
    "field cut": (r"deformation\.safetensors", cut("deformation.safetensors", 0.5)),
    "field empty": (r"deformation\.safetensors", cut("deformation.safetensors", 0)),
    "field gone": (r"deformation\.safetensors", lambda f: (f / "deformation.safetensors").unlink()),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_damage_is_one_line_that_names_the_file(folder: Path, name: str) -> None:
    said, work = FAULTS[name]
    work(folder)
    with pytest.raises(OrbitError, match=said) as caught:
        load_scene(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_one_gaussian_more_than_a_table_moves_is_refused(tmp_path: Path, tiny_scene: Path) -> None:
    from orbit4d.recon4d.deformation.residual import ResidualField

    scene = load_scene(tiny_scene)
    field = ResidualField([0.0, 1.0], len(scene.gaussians), n_nodes=8, width=8)
    replace(scene, field=field).save(tmp_path / "scene")
    g = load_ply(tmp_path / "scene" / "canonical.ply")
    fewer = type(g)(**{key: tensor[1:] for key, tensor in g.tensors().items()})
    save_ply(fewer, tmp_path / "scene" / "canonical.ply")
    with pytest.raises(OrbitError, match=rf"{len(g)} Gaussians, not {len(fewer)}"):
        load_scene(tmp_path / "scene")


def test_a_damaged_run_is_not_gone_on_with(folder: Path, moving_ball: dict[str, np.ndarray]) -> None:
    for text in ("", "[]", '{"preset": '):
        (folder / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json: damaged"):
            reconstruct(moving_ball["dynamic_orbit"], folder, preset="fast")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nothing --format spz --out a.spz", "nothing: no such dataset or scene"),
        ("nothing.ply --format spz --out a.spz", "cannot be read"),
        ("empty --format spz --out a.spz", "empty: not a scene"),
        ("unfinished --format glb --out a.glb", "not finished; run the same recon4d command"),
        ("--format spz --out a.spz", "missing DATASET or SCENE"),
    ],
)
def test_export_says_what_is_lacking(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text("{}")
    assert run(export_command, words.split()) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and error.startswith("error: ") and "\n" not in error
