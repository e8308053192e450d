"""`orbit4d compose PROMPT` and `compose swap`, from the command line to the film."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.compose import experts
from orbit4d.compose.characters import concepts
from orbit4d.compose.characters.relighting import LUMA, mean_colour
from orbit4d.compose.cli import production
from orbit4d.compose.cli.group import compose
from orbit4d.compose.director.steps import OWN_FIELDS
from orbit4d.compose.director.transport import Transport
from orbit4d.compose.experts import Concept, ExpertRequest
from orbit4d.compose.placement import scored
from orbit4d.compose.placement.procedural import build
from orbit4d.datasets import InputError, WorkError
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.videos.video import read_video
from orbit4d.model.distill import GaussianScore
from orbit4d.recon4d import load_scene
from orbit4d.recon4d.cli import film as film_command
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.filming import credit_lines, credits_card
from orbit4d.recon4d.gaussians import from_points
from orbit4d.recon4d.scene import Scene

PROMPT = "a fox walks from the left to the right while a wolf stands, cinematic"
TINY = ["--frames", "6", "--fps", "4", "--size", "48"]


@pytest.fixture(autouse=True)
def _no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *_: Any) -> Any:
        raise WorkError(f"{path}: was to be rendered")

    monkeypatch.setattr(concepts, "static_orbit", refuse)


def composed(toys: Any, out: Path, *words: str, prompt: str = PROMPT) -> int:
    given = ["--library", str(toys.library), "--cache", str(toys.cache), *TINY, "--out", str(out)]
    return run(compose, [prompt, *given, *words])


def record(folder: Path, name: str = "composition.json") -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def film(toys: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("film") / "out"
    assert composed(toys, out) == 0
    return out


def test_a_film_is_a_scene_and_says_how_it_was_made(
    toys: Any, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"spec.json", "plan.json", "composition.json", "metrics.json", "credits.csv", "film.mp4"}
    assert names <= {path.name for path in film.iterdir()}
    parts = [row for row in record(film)["parts"] if row["role"] == "actor"]
    assert [row["uid"] for row in parts] == ["toy_fox", "toy_wolf"]
    assert [row["concept"] for row in parts] == [toys.keys["toy_fox"], toys.keys["toy_wolf"]]
    assert [row["action"] for row in parts] == ["Walk", "Idle"]
    assert len(parts[0]["track"]["points"]) == 20
    fox = np.array(parts[0]["track"]["points"])
    assert fox[0, 0] < -0.1 < 0.1 < fox[-1, 0] and np.allclose(fox[:, 2], 0)
    metrics = record(film, "metrics.json")
    assert metrics["in_picture"] == 1.0 and metrics["feet_sink_max"] <= 0.03 and not metrics["overlaps"]
    assert metrics["facing_deg_max"] <= 1.0
    assert len(metrics["occluded_share"]) == 2 and all(-0.01 <= v <= 1 for v in metrics["occluded_share"])
    rows = list(csv.DictReader((film / "credits.csv").open(encoding="utf-8")))
    assert [(row["role"], row["uid"], row["licence"]) for row in rows] == [
        ("object", "toy_fox", "CC0-1.0"), ("object", "toy_wolf", "CC0-1.0"),
        ("scene", "procedural:meadow", "generated"),
    ]  # fmt: skip
    frames = read_video(film / "film.mp4").frames
    assert frames.shape == (6, 48, 48, 3)
    scene = load_scene(film)
    image = scene.render(scene.cameras[0].resized(32, 32), 0.5)
    assert image.shape == (32, 32, 4) and image[..., 3].max() > 0.5
    # A finished run is loaded, another one in the same folder is refused.
    assert composed(toys, film) == 0 and "already finished" in capsys.readouterr().out
    assert composed(toys, film, "--seed", "3") == 2
    err = capsys.readouterr().err
    assert "made with another seed" in err and err.count("\n") == 1


def test_last_lines_are_what_happened(toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "a unicorn and a seal walk, cinematic"
    assert composed(toys, tmp_path / "out", prompt=prompt) == 0
    out = capsys.readouterr().out
    assert "director  rules (grammar; no language model ran)" in out
    assert "toy_horse, Walk (stands in for unicorn; score" in out
    assert 'unused    "cinematic"' in out and "refined   geometry (no diffusion model ran)" in out
    assert "licence   unknown of toy_seal" in out
    rows = list(csv.DictReader((tmp_path / "out" / "credits.csv").open(encoding="utf-8")))
    assert {row["uid"]: row["licence"] for row in rows}["toy_seal"] == "unknown"


def test_relit_actors_take_the_colour_of_their_ground_and_a_swimmer_s_shadow_lies_on_it(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, prompt = tmp_path / "out", "a fox walks from the left to the right while a seal swims"
    assert composed(toys, out, "--relight", prompt=prompt) == 0
    said = capsys.readouterr().out
    rows = record(out)["parts"]
    actors = {row["actor"]: row for row in rows if row["role"] == "actor"}
    scene = load_scene(out)
    plain = load_scene(out)
    for part in plain.parts:  # type: ignore[attr-defined]
        part.gain = None
    camera = scene.cameras[0].resized(32, 32)
    assert np.array_equal(scene.render(camera, 0.5)[..., 3], plain.render(camera, 0.5)[..., 3])
    assert not np.array_equal(scene.render(camera, 0.5), plain.render(camera, 0.5))
    ground = rows[0]["concept"]
    floor = next(part.scene.gaussians for part in scene.parts if part.key == ground)  # type: ignore[attr-defined]
    for i, row in actors.items():
        r, g, b = row["gain"]
        assert f"relight   actor {i}: red {r:.2f}, green {g:.2f}, blue {b:.2f}" in said
        part = next(p for p in scene.parts if p.key == row["concept"] and p.action)  # type: ignore[attr-defined]
        # The meadow is even: its mean anywhere is its mean everywhere, to its own noise.
        held = LUMA @ (mean_colour(part.scene.gaussians) * [r, g, b])
        assert min(r, g, b) > 0.5 and max(r, g, b) < 2
        assert abs(held - LUMA @ floor.colors.mean(0).numpy()) < 0.03
    shadows = {row["actor"]: row for row in rows if row["role"] == "shadow"}
    over = np.array(actors[1]["track"]["points"])[:, 2]
    assert (over > 0.1).all() and np.allclose(np.array(shadows[1]["track"]["points"])[:, 2], 0, atol=1e-9)
    assert composed(toys, tmp_path / "bare", "--relight", "--scene", "none", prompt="a fox walks") == 0
    assert "relight   nothing: the film has no scene" in capsys.readouterr().out


def test_the_same_prompt_gives_the_same_bytes(toys: Any, film: Path, tmp_path: Path) -> None:
    assert composed(toys, tmp_path / "again") == 0
    for name in ("spec.json", "plan.json", "composition.json", "credits.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (film / name).read_bytes()
    assert files(tmp_path / "again" / "concepts") == files(film / "concepts")


def test_a_refresh_fits_anew(toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, key = tmp_path / "cache", toys.keys["toy_fox"]
    shutil.copytree(toys.cache, cache)
    given = ["a fox walks", "--library", str(toys.library), "--cache", str(cache), *TINY]
    assert run(compose, [*given, "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    # Nothing fits in these tests: that it is tried is what is seen.
    assert run(compose, [*given, "--out", str(tmp_path / "out"), "--refresh"]) == 1
    assert "was to be rendered" in capsys.readouterr().err
    assert not (cache / key).exists() and (cache / toys.keys["toy_wolf"]).is_dir()


def test_an_experts_scene_is_stood_on_and_credited(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ExpertRequest] = []

    def painted(request: ExpertRequest) -> Concept:
        asked.append(request)
        return Concept("scene", "painter 1.0", is_model=True, value=build("beach", 2.0, 2.0, {}))

    monkeypatch.setitem(experts._experts, ("scene", "painted"), painted)
    out = tmp_path / "out"
    assert composed(toys, out, "--scene", "painted:a hill", "--seed", "4", prompt="a fox walks") == 0
    said = capsys.readouterr().out
    assert "scene     painter 1.0 (a model ran)" in said and "licence   unknown of painter 1.0" in said
    assert [(one.text, one.seed) for one in asked] == [("a hill", 4)]
    rows = list(csv.DictReader((out / "credits.csv").open(encoding="utf-8")))
    assert [(row["role"], row["uid"]) for row in rows] == [("object", "toy_fox"), ("scene", "painter 1.0")]
    assert composed(toys, tmp_path / "no", "--scene", "sculpted:a hill", prompt="a fox walks") == 2
    err = capsys.readouterr().err
    assert "painted:WORDS" in err and err.count("\n") == 1 and not (tmp_path / "no").exists()


def test_a_damaged_concept_is_made_again_and_said(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, key = tmp_path / "cache", toys.keys["toy_fox"]
    shutil.copytree(toys.cache, cache)
    (cache / key / "rig.npz").write_bytes(b"no zip")
    out = str(tmp_path / "out")
    given = ["a fox walks", "--library", str(toys.library), "--cache", str(cache), *TINY, "--out", out]
    assert run(compose, given) == 1
    said = capsys.readouterr()
    assert f"concept {key[:8]} is damaged: made again" in said.out
    assert "was to be rendered" in said.err and "Traceback" not in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--object", "a horse"], "toy_horse, Idle"),
        (["--action", "gallop"], "toy_wolf, Gallop"),
    ],
)
def test_a_swap_leaves_the_rest_bit_for_bit(
    toys: Any, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    before = files(film)
    out = tmp_path / "swapped"
    given = ["swap", str(film), "--actor", "1", *words, "--cache", str(toys.cache), "--out", str(out)]
    assert run(compose, given) == 0
    out_lines = capsys.readouterr().out
    assert said in out_lines and "refined   nothing (places are those of the film before)" in out_lines
    assert files(film) == before
    old, new = record(film)["parts"], record(out)["parts"]
    for a, b in zip(old, new, strict=True):
        if a.get("actor") != 1:
            assert a == b
            assert files(film / "concepts" / a["concept"]) == files(out / "concepts" / a["concept"])
    mine = [next(r for r in rows if r["role"] == "actor" and r["actor"] == 1) for rows in (old, new)]
    assert mine[0]["track"]["points"] == mine[1]["track"]["points"]
    assert mine[0]["track"]["turns"] == mine[1]["track"]["turns"]
    assert (mine[0]["uid"], mine[0]["action"]) != (mine[1]["uid"], mine[1]["action"])


def test_another_way_leaves_the_others_where_they_are(toys: Any, film: Path, tmp_path: Path) -> None:
    out = tmp_path / "swapped"
    given = ["swap", str(film), "--actor", "0", "--path", "from right to left", "--cache", str(toys.cache)]
    assert run(compose, [*given, "--out", str(out)]) == 0
    tracks = [
        {row["actor"]: row["track"] for row in record(folder)["parts"] if row["role"] == "actor"}
        for folder in (film, out)
    ]
    assert tracks[0][1] == tracks[1][1]
    ways = [np.array(one[0]["points"])[[0, -1], 0] for one in tracks]
    assert ways[0][0] < ways[0][1] and ways[1][0] > ways[1][1]
    # The same command again finds it done, and goes on where it was stopped.
    before = files(out)
    assert run(compose, [*given, "--out", str(out)]) == 0 and files(out) == before
    (out / "film.mp4").unlink()
    assert run(compose, [*given, "--out", str(out)]) == 0
    assert files(out)["composition.json"] == before["composition.json"] and (out / "film.mp4").is_file()


def test_a_damaged_film_is_no_traceback(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("spec.json", '{"a": NaN}'), ("plan.json", None), ("request.json", "[1]")):
        folder = tmp_path / name
        shutil.copytree(film, folder)
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text, encoding="utf-8")
        words = ["swap", str(folder), "--actor", "0", "--object", "a wolf", "--out", str(tmp_path / "o")]
        assert run(compose, words) == 1
        err = capsys.readouterr().err
        assert "damaged film" in err and err.count("\n") == 1 and len(err) <= 310
    assert not (tmp_path / "o").exists()


def test_a_new_scene_plans_the_paths_anew(
    toys: Any, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "swapped"
    given = ["swap", str(film), "--scene", "a beach", "--cache", str(toys.cache), "--out", str(out)]
    assert run(compose, given) == 0
    assert "paths     planned again for the new scene" in capsys.readouterr().out
    scenes = [next(r for r in record(f)["parts"] if r["role"] == "scene") for f in (film, out)]
    assert scenes[0]["concept"] != scenes[1]["concept"]
    assert record(out, "plan.json")["scene"] == "beach"


def test_a_chat_places_the_actors_and_its_replay_gives_the_same_composition(
    toys: Any, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A director that draws a line up the left of the ground; its replay opens no socket."""
    asked: list[str] = []

    def post(_: Any, body: Any) -> Any:
        content = body["messages"][1]["content"]
        words = content if isinstance(content, str) else content[0]["text"]
        asked.append(words)
        if "Split this description" in words:
            spec = record(film, "spec.json")
            reply: Any = {key: value for key, value in spec.items() if key not in OWN_FIELDS}
        elif "How tall" in words:
            reply = {"height": 60, "width": 40}
        elif "20 points" in words:
            wolf = "from (380, 304)" in words
            reply = {"points": [[380 - 12 * i, 304] if wolf else [150, 380 - 4 * i] for i in range(20)]}
        elif "red mark" in words:
            reply = {"x": 150, "y": 304}
        else:
            reply = {"x": 150 if "left" in words else 380, "y": 380 if "left" in words else 304}
        return {"choices": [{"message": {"content": json.dumps(reply)}}]}

    monkeypatch.setattr(Transport, "post", post)
    chat = ["--director", "chat", "--chat-url", "http://127.0.0.1:9/v1", "--chat-model", "mock"]
    assert composed(toys, tmp_path / "asked", *chat) == 0
    assert len(asked) == 1 + 4 * 2  # the spec, then four steps for each of two actors
    out = capsys.readouterr().out
    assert "director  chat (mock at 127.0.0.1:9)" in out
    assert "places    chat (scale, start, end and path of each actor)" in out
    tracks = [r["track"] for r in record(tmp_path / "asked")["parts"] if r["role"] == "actor"]
    points = np.array(tracks[0]["points"])
    assert points[-1, 1] > points[0, 1] + 0.1 and points[:, 0].max() < -0.05  # away, on the left
    assert np.allclose(np.array(tracks[1]["points"]), tracks[1]["points"][0])  # the wolf stands
    # The height is that of a box of 60 pixels on its contact point, whose distance the image says.
    assert 0.05 < tracks[0]["scale"] < 5

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a replay asked")

    monkeypatch.setattr(Transport, "post", refuse)
    replies = tmp_path / "asked" / "director" / "replies.jsonl"
    assert composed(toys, tmp_path / "replayed", "--director", f"recorded:{replies}") == 0
    said = capsys.readouterr().out
    assert "no language model ran" in said and "places    recorded" in said
    for name in ("composition.json", "plan.json"):
        a, b = ((tmp_path / where / name).read_bytes() for where in ("asked", "replayed"))
        assert a == b
    assert composed(toys, tmp_path / "other", "--director", f"recorded:{replies}", prompt="a wolf walks") == 2
    err = capsys.readouterr().err
    assert "no reply for step spec, key" in err and err.count("\n") == 1


def plain_scene(folder: Path, opacity: float = 0.98) -> Path:
    """A floor of 4 by 3 units around (10, 5), with a pillar in its middle."""
    x, y = (a.ravel() for a in np.meshgrid(np.arange(8, 12.01, 0.05), np.arange(3.5, 6.51, 0.05)))
    floor = np.column_stack([x, y, np.full(len(x), 0.5)])
    z = np.linspace(0.5, 1.7, 40)
    pillar = np.column_stack([np.full(40, 10.0), np.full(40, 5.0), z])
    points = np.concatenate([floor, pillar + np.array([0.05, 0, 0]), pillar])
    found = from_points(points, np.full((len(points), 3), 0.5), opacity=opacity)
    found.log_scales[:] = float(np.log(0.03))
    Scene(found, StillField()).save(folder)
    return folder


def test_a_scene_of_ones_own_is_walked_around_its_obstacles(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = plain_scene(tmp_path / "scene")
    out = tmp_path / "out"
    assert composed(toys, out, "--scene", str(scene), prompt="a fox walks from left to right") == 0
    said = capsys.readouterr().out
    assert "scene: a unit is taken as 1 m; its ground is 4." in said
    parts = record(out)["parts"]
    assert parts[0]["role"] == "scene"
    points = np.array(next(r for r in parts if r["role"] == "actor")["track"]["points"])
    # On a ground that is not at height 0 it stands all the same.
    assert all(row["grounded"] for row in record(out, "metrics.json")["individuals"])
    assert np.allclose(points[:, 2], 0.5, atol=0.05) and points[-1, 0] > points[0, 0] + 0.2
    # The middle of its ground is the origin; the pillar stands there, and nobody walks through it.
    assert np.linalg.norm(points[:, :2], axis=1).min() > 0.05
    given = ["swap", str(out), "--scene", "a beach", "--cache", str(toys.cache), "--out", str(tmp_path / "b")]
    assert run(compose, given) == 0 and record(tmp_path / "b", "plan.json")["scene"] == "beach"
    capsys.readouterr()
    nothing = plain_scene(tmp_path / "air", opacity=0.1)
    assert composed(toys, tmp_path / "no", "--scene", str(nothing), prompt="a fox walks") == 1
    err = capsys.readouterr().err
    assert "no ground" in err and err.count("\n") == 1


def test_refinement_by_a_prior_and_where_there_is_none(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "weights"
    empty.mkdir()
    prompt = "a fox walks"
    words = ["--refine", "sd15", "--refine-model", str(empty)]
    assert composed(toys, tmp_path / "none", *words, prompt=prompt) == 2
    err = capsys.readouterr().err
    assert "or take --refine geometry" in err and err.count("\n") == 1 and "weights" in err
    assert not (tmp_path / "none" / "spec.json").exists()
    told: list[str] = []

    class Grey(GaussianScore):
        """Likes grey images."""

        size = (32, 32)

        def encode(self, image: Any) -> Any:
            assert image.shape == (1, 3, 32, 32)
            return image

        def condition(self, prompt: str) -> Any:
            told.append(prompt)

    schedule = torch.linspace(0.99, 0.01, 1000, dtype=torch.float64)
    model = Grey(torch.full((3, 32, 32), 0.5), 0.1, schedule)
    monkeypatch.setattr(production, "_prior", lambda _: model)
    monkeypatch.setattr(scored, "STEPS", (3, 1))
    assert composed(toys, tmp_path / "out", *words, prompt=prompt) == 0
    assert "refined   sd15" in capsys.readouterr().out and told == ["fox walks"] and model.calls >= 23
    assert composed(toys, tmp_path / "coarse", "--refine", "none", prompt=prompt) == 0
    tracks = [
        next(r for r in record(tmp_path / name)["parts"] if r["role"] == "actor")["track"]
        for name in ("out", "coarse")
    ]
    moved = np.abs(np.array(tracks[0]["points"]) - tracks[1]["points"])
    assert 0 < moved.max() <= 0.05 and 0 < abs(tracks[0]["scale"] - tracks[1]["scale"]) <= 0.05


BAD: list[tuple[Callable[[Any, Path, Path], list[str]], int, str]] = [
    (lambda t, f, o: ["swap", str(f), "--out", str(o)], 2, "nothing to swap"),
    (lambda t, f, o: ["swap", str(f), "--actor", "7", "--object", "a cow", "--out", str(o)], 2, "0 fox, 1"),
    (
        lambda t, f, o: ["swap", str(f), "--object", "a cow", "--out", str(o)],
        2,
        "--actor missing; the actors",
    ),
    (
        lambda t, f, o: ["swap", str(f), "--actor", "0", "--path", "banana", "--out", str(o)],
        2,
        "says no way",
    ),
    (
        lambda t, f, o: ["swap", str(f), "--actor", "0", "--object", " .", "--out", str(o)],
        2,
        "--object .: pro",
    ),
    (lambda t, f, o: ["swap", str(f), "--actor", "0", "--action", "blue", "--out", str(o)], 2, "no motion"),
    (lambda t, f, o: ["swap", str(f), "--scene", "the", "--out", str(o)], 2, "names no scene"),
    (lambda t, f, o: ["swap", str(f), "--scene", str(t.cache), "--out", str(o)], 2, "no scene.json"),
    (lambda t, f, o: ["swap", str(t.cache), "--actor", "0", "--out", str(o)], 2, "orbit4d compose PROMPT"),
    (lambda t, f, o: ["swap", str(f), "--scene", "a beach", "--out", str(f)], 2, "holds other files"),
    (lambda t, f, o: ["jumps", "--library", str(t.library), "--out", str(o)], 2, "nobody in it"),
    (lambda t, f, o: ["a fox", "--library", str(t.library), "--out", str(f)], 2, "another prompt"),
    (lambda t, f, o: ["a fox", "--library", str(t.library), "--out", str(t.cache)], 2, "holds other files"),
    (lambda t, f, o: ["a fox", "--library", "none.csv", "--out", str(o)], 2, "no such library"),
    (
        lambda t, f, o: ["a robot", "--library", str(t.library), "--strict", "--out", str(o)],
        2,
        "no asset for 'robot' in 4 assets",
    ),
    (
        lambda t, f, o: ["a fox", "--library", str(t.library), "--license", "mit", "--out", str(o)],
        2,
        "leaves no asset of 4",
    ),
    (
        lambda t, f, o: ["a fox", "--library", str(t.library), "--frames", "1", "--out", str(o)],
        2,
        "2 to 2000",
    ),
    (lambda t, f, o: ["a fox", "--library", str(t.library), "--fps", "0", "--out", str(o)], 2, "1 to 120"),
    (lambda t, f, o: ["a fox", "--library", str(t.library), "--size", "8", "--out", str(o)], 2, "32 to 2048"),
    (
        lambda t, f, o: ["a fox", "--library", str(t.library), "--scene", "attic", "--out", str(o)],
        2,
        "--scene attic",
    ),
]


@pytest.mark.parametrize(("words", "code", "message"), BAD)
def test_bad_input_is_one_line(
    toys: Any, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: Any, code: int,
    message: str,
) -> None:  # fmt: skip
    before = files(film)
    assert run(compose, words(toys, film, tmp_path / "out")) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and len(err) <= 310 and "Traceback" not in err
    assert files(film) == before


def test_a_file_that_is_gone_names_the_column(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "actions.csv"
    table.write_text("uid,action,caption,file\nfox,Walk,a fox,fox.glb\n", encoding="utf-8")
    assert run(compose, ["a fox", "--library", str(table), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "fix the library's column `file`" in err and err.count("\n") == 1


def test_a_closing_card_names_who_made_what(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clip.mp4"
    words = [str(film), "--rig", "director", "--credits", "--size", "96", "--out", str(out)]
    assert run(film_command, words) == 0
    frames = read_video(out).frames
    assert len(frames) == 6 + 12  # three seconds at four frames a second
    assert frames[-1].max() > 200 and np.median(frames[-1]) < 30 and np.median(frames[0]) > 100
    assert credit_lines(film)[0].startswith('"a red fox" (toy_fox), by Ann, licensed CC0-1.0')
    capsys.readouterr()
    many = credits_card(["a line of some length"] * 40, 96, 96)
    assert many.shape == (96, 96, 3) and many[:4].max() == 0 and many[:, :4].max() == 0
    assert run(film_command, [str(film), "--credits", "--out", str(tmp_path / "no.mp4")]) == 2
    err = capsys.readouterr().err
    assert "add --rig director" in err and err.count("\n") == 1
    with pytest.raises(InputError, match="no credits with a column"):
        credit_lines(tmp_path)
