"""Where commands on scenes read and write: URIs, names nobody gave, files that are there already."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.commands.command import run
from orbit4d.datasets.commands.default_out import default_scene, default_table
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.videos.video import read_video, write_video
from orbit4d.recon4d import cli, reconstruct
from orbit4d.recon4d.export.formats import check_suffix
from orbit4d.recon4d.fitting.settings import PRESETS
from orbit4d.recon4d.viewer import clip_viewer
from orbit4d.recon4d.viewer.scene_viewer import check_address


@pytest.fixture
def place() -> str:
    return f"memory://scenes-{uuid.uuid4().hex}"


def tree(uri: str) -> list[str]:
    return list(Store(uri).tree())


def put_scene(scene: Path, uri: str) -> str:
    for file in scene.iterdir():
        Store(uri).upload(file.name, file)
    return uri


def error(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err.strip()
    last = text.splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in text
    return last


def test_a_scene_at_a_uri_is_filmed_to_a_uri(
    tiny_scene: Path,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = put_scene(tiny_scene, f"{place}/scene")
    words = [scene, "--out", f"{place}/films/turn.mp4", "--frames", "3", "--size", "40"]
    assert run(cli.film, words) == 0
    assert f"{place}/films/turn.mp4: 3 frames" in capsys.readouterr().out
    (tmp_path / "turn.mp4").write_bytes(Store(f"{place}/films").read("turn.mp4"))
    assert read_video(tmp_path / "turn.mp4").frames.shape == (3, 40, 40, 3)
    assert run(cli.film, words) == 2
    assert "--overwrite" in error(capsys)
    assert run(cli.film, [*words, "--overwrite", "--rig", "bullet_time"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["turn.mp4"], "no local folder is named like a URI"


def test_an_existing_film_is_kept(
    tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "film.mp4"
    out.write_bytes(b"precious")
    words = [str(tiny_scene), "--out", str(out), "--frames", "2", "--size", "32"]
    assert run(cli.film, words) == 2 and out.read_bytes() == b"precious"
    assert "film.mp4" in error(capsys)
    assert run(cli.film, [*words, "--overwrite"]) == 0 and len(read_video(out).frames) == 2


@pytest.mark.parametrize(
    ("format", "name", "made"),
    [
        ("splat", "a.splat", ["a.splat"]),
        ("ply-sequence", "plys", ["plys/000.ply", "plys/001.ply"]),
        ("frames", "views", ["views/000.png", "views/001.png", "views/transforms.json"]),
    ],
)
def test_a_scene_is_exported_to_a_uri(
    format: str, name: str, made: list[str], tiny_scene: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tiny_scene), "--format", format, "--frames", "2", "--out", f"{place}/{name}"]
    assert run(cli.export_scene, words) == 0
    assert tree(place) == made
    assert run(cli.export_scene, words) == 2
    assert "is there already" in error(capsys)


def test_a_reconstruction_is_resumed_from_a_uri(
    moving_ball: dict[str, np.ndarray],
    place: str,
    tiny_settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "fast", tiny_settings)
    rgba = moving_ball["dynamic_orbit"]
    write_video(tmp_path / "ball.mp4", np.where(rgba[..., 3:] > 127, rgba[..., :3], 255).astype(np.uint8))
    Store(f"{place}/in").upload("ball.mp4", tmp_path / "ball.mp4")
    words = [f"{place}/in/ball.mp4", "--preset", "fast", "--steps", "20", "--threads", "1"]

    from orbit4d.recon4d.fitting import optimize
    from orbit4d.recon4d.fitting.state import save_checkpoint

    whole = optimize.optimise

    def stopped(fit: Any, *rest: Any) -> None:
        save_checkpoint(fit, rest[3])
        raise KeyboardInterrupt

    monkeypatch.setattr(optimize, "optimise", stopped)
    assert run(cli.recon4d, [*words, "--out", f"{place}/scene"]) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert tree(f"{place}/scene") == ["checkpoint.pt", "run.json"]
    monkeypatch.setattr(optimize, "optimise", whole)
    assert run(cli.recon4d, [*words, "--out", f"{place}/scene"]) == 0
    assert f"scene {place}/scene: " in capsys.readouterr().out
    assert "scene.json" in tree(f"{place}/scene") and "checkpoint.pt" not in tree(f"{place}/scene")
    info = Store(f"{place}/scene").read("scene.json").decode()
    assert json.loads(info)["source"] == f"{place}/in/ball.mp4" and "orbit4d-scratch" not in info
    assert run(cli.recon4d, [*words, "--out", f"{place}/scene", "--seed", "3"]) == 2
    assert f"{place}/scene: holds a scene made with another seed" in error(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["ball.mp4"]


def test_python_refuses_uris_in_one_line(
    tiny_scene: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbit4d.recon4d.export.formats import export_scene
    from orbit4d.recon4d.filming import film
    from orbit4d.recon4d.scene import load_scene

    monkeypatch.chdir(tmp_path)
    scene = load_scene(tiny_scene)
    for work in (
        lambda: film(scene, "s3://bucket/a.mp4", frames=1),
        lambda: export_scene(scene, "s3://bucket/a"),
        lambda: export_scene(scene, Path("s3://bucket/a.splat"), "splat"),
        lambda: reconstruct(f"{tiny_dataset}:asset-000:Run", "gs://bucket/scene"),
        lambda: load_scene("s3://bucket/scene"),
    ):
        with pytest.raises(InputError, match="is a URI"):
            work()
    assert list(tmp_path.iterdir()) == []


# Names nobody gave ------------------------------------------------------------------------------------------


def test_default_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "frames.v2").mkdir(parents=True)
    (tmp_path / "in" / "my clip.mp4").write_bytes(b"")
    assert default_scene("in/my clip.mp4") == "in/my clip.scene"
    assert default_scene("in/frames.v2/") == "in/frames.v2.scene"
    assert default_scene(f"{tmp_path}/in/my clip.mp4") == f"{tmp_path}/in/my clip.scene"
    assert default_scene("elsewhere/dataset:fox:Run") == "fox.scene"
    assert default_scene("s3://bucket/deep/orbit.mp4") == "orbit.scene"
    (tmp_path / "in" / "a.glb").write_bytes(b"")
    assert default_table("in/a.glb") == "in/a.curated.parquet"
    assert default_table("in") == default_table("./in/").removeprefix("./") == "in.curated.parquet"
    assert default_table("in/*.glb") == "in.curated.parquet"
    assert default_table("*.glb") == f"{tmp_path.name}.curated.parquet"
    assert default_table("objaverse:animated?limit=3") == "objaverse-animated.curated.parquet"
    assert default_table("demo:") == "demo.curated.parquet"
    assert default_table("s3://bucket/assets/") == "assets.curated.parquet"
    monkeypatch.chdir(tmp_path / "in")
    assert default_table(".") == str(tmp_path / "in.curated.parquet")


def test_recon4d_writes_beside_its_video(
    moving_ball: dict[str, np.ndarray],
    tiny_dataset: Path,
    tiny_settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "fast", tiny_settings)
    rgba = moving_ball["dynamic_orbit"]
    white = np.where(rgba[..., 3:] > 127, rgba[..., :3], 255).astype(np.uint8)
    write_video(tmp_path / "shots" / "at 7:30.mp4", white)
    more = ["--preset", "fast", "--steps", "10", "--threads", "1"]
    assert run(cli.recon4d, ["shots/at 7:30.mp4", *more]) == 0
    assert "scene shots/at 7:30.scene: " in capsys.readouterr().out
    assert (tmp_path / "shots" / "at 7:30.scene" / "scene.json").is_file()
    assert run(cli.recon4d, ["shots/at 7:30.mp4", *more]) == 0
    assert "already finished" in capsys.readouterr().out
    assert run(cli.recon4d, ["shots/at 7:30.mp4", *more, "--seed", "5"]) == 2
    assert "give another --out" in error(capsys)
    assert run(cli.recon4d, [f"{tiny_dataset}:asset-000", *more]) == 0
    assert (tmp_path / "asset-000.scene" / "scene.json").is_file()


# Names that contradict --format -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format", "fix"),
    [
        ("a.ply", "splat", ""),
        ("a.SPZ", "splat", "--format spz"),
        ("a.splat", "spz", "--format splat"),
        ("a.splat", "ply-sequence", "--format splat"),
        ("a.ply", "ply-sequence", "folder"),
        ("a.mp4", "frames", "folder"),
        ("a.zip", "frames", "folder"),
    ],
)
def test_a_contradicting_suffix_is_refused(name: str, format: str, fix: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        check_suffix(Path(name), format)
    assert fix in str(caught.value)


@pytest.mark.parametrize(
    ("name", "format"), [("a.splat", "splat"), ("a.Spz", "spz"), ("v1.2", "frames"), ("a", "splat")]
)
def test_other_suffixes_are_free(name: str, format: str) -> None:
    check_suffix(Path(name), format)


# The viewer -------------------------------------------------------------------------------------------------


def test_addresses_that_cannot_be_served_are_refused() -> None:
    check_address("127.0.0.1", 8080)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        check_address("127.0.0.1", taken.getsockname()[1])  # viser takes the next one
    for host in ("192.0.2.1", "nosuch.invalid", "256.1.1.1", "a" * 300):
        with pytest.raises(InputError, match="--host"):
            check_address(host, 8080)


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1"])
def test_ports_out_of_range_are_refused(port: str, tiny_scene: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(cli.view, [str(tiny_scene), "--port", port]) == 2
    assert "--port" in error(capsys)


def test_ctrl_c_closes_the_page(
    tiny_scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from orbit4d.recon4d.viewer.scene_viewer import Viewer

    def stopped(viewer: Viewer) -> None:
        viewer.stop()
        raise KeyboardInterrupt

    monkeypatch.setattr(Viewer, "serve", stopped)
    assert run(cli.view, [str(tiny_scene), "--frames", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("closed\n") and "committed" not in err


def test_clips_that_are_left_out_are_counted(
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = make_dataset(tmp_path / "dataset", assets=3, n_frames=4, size=16)
    monkeypatch.setattr(clip_viewer, "MAX_CLIPS", 5)
    monkeypatch.setattr(clip_viewer.ClipViewer, "serve", clip_viewer.ClipViewer.stop)
    assert run(cli.view, [str(dataset)]) == 0
    assert "the first 5 clips, 7 more are left out" in capsys.readouterr().err
    assert run(cli.view, [f"{dataset}:asset-000"]) == 0
    assert "left out" not in capsys.readouterr().err
    assert run(cli.view, [f"{dataset}:nobody"]) == 2
    assert "orbit4d list" in error(capsys)
