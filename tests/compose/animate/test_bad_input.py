"""What cannot be served is refused in one line that names the option, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.app.cli import command
from orbit4d.compose.animate.priors.slots import check_device
from orbit4d.compose.animate.request import MOTION_WORDS, STATIC_WORDS, Request, plan
from orbit4d.compose.animate.run import animate
from orbit4d.compose.animate.settings import DEFAULT_PRIORS, PUBLISHED
from orbit4d.compose.animate.start.reference import misfit, read_reference
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill.cost import step_work
from orbit4d.model.distill.scores.images import CONTROL_PROMPT

Make = Callable[..., Request]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "best"}, "--preset best: choose from ours, published, draft"),
        ({"steps": "1,2"}, "--steps 1,2: give three numbers"),
        ({"steps": "-1,2,3"}, "give numbers of 0 or more"),
        ({"steps": "0,0,0"}, "nothing is to be done"),
        ({"stages": "moving"}, "--stages moving: choose from static, motion, refine"),
        ({"frames": 1}, "--frames 1: a clip has at least 2"),
        ({"resolution": 8}, "--resolution 8"),
        ({"canonical": "loose"}, "--canonical loose"),
        ({"weights": "video"}, "--lambda video: write SLOT=NUMBER"),
        ({"weights": "sound=1"}, "--lambda sound=1"),
        ({"weights": "video=nan"}, "--lambda video=nan"),
        ({"estimator": "sdz"}, "--estimator sdz: the nearest is"),
        ({"via": "generate"}, "--via generate: needs --run"),
        ({"via": "generate", "run": "r"}, "leave --prior-video out"),
        ({"text": "a <cat> runs"}, "<cat> in a prompt is a learned word: give its file with --token"),
        ({"token": "none.bin"}, "none.bin"),
        ({"elevation": 95.0}, "--elevation 95"),
        ({"image": "none.png"}, "none.png: "),
    ],
)
def test_requests(asked: Make, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(asked(tmp_path / "out", **changes)).record()
    assert words in str(caught.value), caught.value
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        ({"3d": "analytic:none.npz"}, "none.npz: no such file"),
        ({"video": "analytic:FIGURE?bias=tilt"}, "bias 'tilt'"),
        ({"video": "analytic:FIGURE?colour=red"}, "'colour' is unknown"),
        ({"tile": "analytic:FIGURE?bias=tint"}, "--prior-tile: .*leave it out"),
        ({"video": "nonsense"}, "--prior-video: .*nonsense"),
        ({"3d": "none"}, "stage static needs --prior-2d or --prior-3d"),
    ],
)
def test_priors(asked: Make, figure: Path, tmp_path: Path, priors: dict[str, str], words: str) -> None:
    request = asked(tmp_path / "out", text="it moves")
    changed = {slot: spec.replace("FIGURE", str(figure)) for slot, spec in priors.items()}
    with pytest.raises(InputError, match=words):
        animate(asked(tmp_path / "out", text="it moves", priors={**request.priors, **changed}))
    assert not (tmp_path / "out").exists()


def test_a_prior_of_words_needs_words() -> None:
    with pytest.raises(InputError, match="motion text is empty"):
        plan(Request(Path("out"), image=__file__, priors={"3d": "zero123-xl", "video": "modelscope"}))
    with pytest.raises(InputError, match="give an IMAGE"):
        plan(Request(Path("out"), text="a panda", priors={"3d": "zero123-xl", "video": "modelscope"}))


def test_a_learned_word_that_no_prompt_names_is_told(asked: Make, tmp_path: Path) -> None:
    token = tmp_path / "token.safetensors"
    token.write_bytes(b"x")
    assert plan(asked(tmp_path / "out", token=str(token), text="it runs")).notes[0].startswith("warning")
    assert not plan(asked(tmp_path / "out", token=str(token), text="<it> runs")).notes


def test_a_learned_word_is_not_for_the_video_prior(tmp_path: Path) -> None:
    token = tmp_path / "token.safetensors"
    token.write_bytes(b"x")
    asked = Request(tmp_path / "out", image=__file__, text="a <it> runs", token=str(token))
    with pytest.raises(
        InputError, match=r"<it> in the motion text: --prior-video modelscope .*--prompt-refine"
    ):
        plan(asked)
    served = plan(replace(asked, text="it runs", prompts={"refine": "a <it>"}))
    assert served.prompts["refine"] == "a <it>" and not served.notes


def test_a_published_model_on_a_cpu_says_what_a_step_takes() -> None:
    specs = {"2d": "none", "3d": "zero123-xl", "video": "modelscope", "tile": "analytic:x"}
    with pytest.raises(InputError, match=r"--prior-3d zero123-xl: there is no GPU.* or more .*--device cpu"):
        check_device(specs, "cpu", "auto")
    notes = check_device(specs, "cpu", "cpu")
    assert [note.split(":")[0] for note in notes] == ["prior 3d", "prior video"]
    assert all("TFLOP" in note for note in notes)
    assert check_device(specs, "cuda", "auto") == []
    assert step_work("modelscope") > step_work("zero123-xl") > 0


def test_an_offload_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, ["animate", "--out", str(tmp_path / "o"), "--offload", "sometimes"]) == 2
    said = capsys.readouterr().err
    assert "sometimes" in said and "sequential" in said and "Traceback" not in said


def test_folders_of_others_are_left_alone(asked: Make, tmp_path: Path) -> None:
    (tmp_path / "scene.json").write_text("{}")
    with pytest.raises(InputError, match="is a scene that animate did not make"):
        animate(asked(tmp_path))
    (tmp_path / "scene.json").rename(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="holds other files"):
        animate(asked(tmp_path))
    with pytest.raises(InputError, match="is a file"):
        animate(asked(tmp_path / "notes.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_still_objects(asked: Make, tmp_path: Path) -> None:
    for source, words in (("none", "no such file"), ("none.glb", "no such file"), ("none:fox", "none")):
        with pytest.raises(InputError, match=words):
            animate(asked(tmp_path / "out", static=source))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match="name one object in it"):
        animate(asked(tmp_path / "out", static=str(tmp_path / "data")))


def drawn(path: Path, size: int = 96, mode: str = "RGBA", margin: int = 20) -> Path:
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[margin : size - margin, margin : size - margin] = (200, 60, 40, 255)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_images(tmp_path: Path) -> None:
    good = read_reference(drawn(tmp_path / "good.png"), 32, "flat")
    assert good.rgba.shape == (32, 32, 4)
    assert (good.rgba[..., :3] <= good.rgba[..., 3:] + 1e-6).all()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    frames = [Image.new("RGB", (80, 80), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
    for path, words in (
        (drawn(tmp_path / "small.png", 40, margin=8), "at least 64"),
        (drawn(tmp_path / "full.png", margin=0), "the image|object|flat"),
        (drawn(tmp_path / "empty.png", margin=48), "empty"),
        (broken, "not a readable image"),
        (tmp_path / "moves.gif", "is animated; save its first frame"),
        (tmp_path / "absent.png", "no such file"),
    ):
        with pytest.raises(InputError, match=words):
            read_reference(path, 32, "flat")


def test_a_converted_image_says_so(tmp_path: Path) -> None:
    image = Image.new("CMYK", (96, 96), (0, 0, 0, 0))
    image.paste((0, 200, 200, 0), (30, 30, 66, 66))
    image.save(tmp_path / "print.jpg", quality=100)
    assert "CMYK converted to 8-bit RGB" in read_reference(tmp_path / "print.jpg", 32, "flat").notes


def test_an_image_that_does_not_fit_is_a_warning_with_a_number(
    asked: Make, figure: Path, tmp_path: Path
) -> None:
    from orbit4d.compose.animate.priors.truth import open_truth, still_field
    from orbit4d.compose.animate.sampling import View
    from orbit4d.recon4d.scene import Scene

    scene = Scene(open_truth(str(figure)).gaussians_at(0.0), still_field())
    reference = read_reference(drawn(tmp_path / "square.png"), 32, "flat")
    warning = misfit(reference, scene, View(0.0, 0.0, 2.0), 39.6)
    assert warning is not None and "IoU of their mattes at the front is 0." in warning


def test_the_command_answers_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert run(command, ["animate", "--out", out, "--prior-video", "none", "--prior-3d", "none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run(command, ["animate", "--out", out, "--steps", "0,0,0", "a.png", "it moves"]) == 2
    assert "--steps 0,0,0" in capsys.readouterr().err


def test_a_dry_run_prints_the_priors_and_writes_nothing(
    figure: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, out = f"analytic:{figure}", tmp_path / "out"
    words = ["animate", "--prior-3d", known, "--prior-video", known, "--out", str(out), "--dry-run"]
    assert run(command, words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [f"prior {s}" for s in ("2d", "3d", "video", "tile")]
    assert lines[3] == "prior tile: none, stage 3 is not run"
    assert not out.exists()


#: animate124.md, 3.1 to 3.3: HeliosZhao/Animate124 at d546941, a name of a setting and its value each.
RELEASED: dict[str, Any] = {
    "steps": (5_000, 10_000, 5_000), "resolution": 128, "frames": 16, "final": 1.0, "betas": (0.9, 0.99),
    "field_rate": 1e-3, "refine_field_rate": 1e-3, "clip_value": 1.0, "scaling": "sum",
    "canonical": "trained", "canonical_rate": 1.0, "motion_canonical_rate": 1.0,
    "over": "gaussians", "n_keys": 64, "heads": ("means", "quats", "log_scales", "colors", "logits"),
    "time_tv": 0.1, "opacity_entropy": 1e-3, "rigidity": 0.0, "sizes": ((1.0, 1.0),),
    "precision": 256, "zero_rate": 0.2, "mirror": 0.5, "tile_frames": 2, "tile_even": True, "elevation": 0.0,
    "rig.radius": 1.8, "rig.fov": 40.0, "rig.elevation": 45.0, "rig.upper_sphere": 0.5, "rig.moving": 0.9,
    "rig.swing_azimuth": 90.0, "rig.swing_elevation": 45.0, "rig.highest": 90.0,
    "reference.first": 100, "reference.every": 4, "reference.in_motion": 4, "reference.rgb": 5.0,
    "reference.alpha": 0.5, "reference.jitter": 1e-3, "reference.masked": True,
}  # fmt: skip
ASKED: dict[str, Any] = {
    "2d": (1.0, "sds", 100.0, "from_cond", (0.2, 0.6), False, None),
    "3d": (40.0, "sds", 5.0, "from_uncond", (0.2, 0.6), True, None),
    "video": (1.0, "sds", 100.0, "from_cond", (0.02, 0.98), False, None),
    "tile": (1.0, "sds", 7.5, "from_cond", (0.2, 0.8), False, "clean"),
}


@pytest.mark.parametrize("name", RELEASED)
def test_the_published_constants_are_the_released_ones(name: str) -> None:
    assert attrgetter(name)(PUBLISHED) == RELEASED[name]


@pytest.mark.parametrize("slot", ASKED)
def test_the_published_priors_are_asked_as_released(slot: str) -> None:
    d = PUBLISHED.distilling[slot]
    assert (d.weight, d.estimator, d.scale, d.form, d.t_range, d.by_angle, d.w_t) == ASKED[slot]


def test_the_published_words_are_the_released_ones() -> None:
    assert (MOTION_WORDS, STATIC_WORDS) == (", high-resolution, 8k, good quality", ", 8k, good quality")
    assert CONTROL_PROMPT == "best quality, high resolution"
    assert DEFAULT_PRIORS["published"] == {
        "2d": "sd15", "3d": "zero123-xl", "video": "modelscope", "tile": "controlnet-tile",
    }  # fmt: skip
