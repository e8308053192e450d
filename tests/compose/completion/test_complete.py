"""`recon4d --complete` whole, and how it finds what is missing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from orbit4d.app.cli import command
from orbit4d.compose.completion.complete import APART_DEG, _angle, moments, unseen_share
from orbit4d.compose.completion.view import View
from orbit4d.datasets import orbit
from orbit4d.datasets.core.errors import InputError


def view_of(drawn, camera):
    rgba, depth = drawn(camera)
    return View(rgba[..., :3] / np.float32(255), rgba[..., 3] / np.float32(255), "", camera, 0.0, depth)


def test_what_no_camera_sees_is_missing(drawn):
    around = orbit(24, size=(64, 64))
    front = [around[i] for i in (22, 23, 0, 1, 2)]
    depths = [drawn(camera)[1] for camera in front]
    shares = [unseen_share(view_of(drawn, around[i]), tuple(front), depths) for i in (0, 6, 12)]
    assert shares[0] == 0 and 0 < shares[1] < shares[2]
    # From behind nothing is seen but a rim at the sides.
    object_ = float((drawn(around[12])[0][..., 3] > 127).mean())
    assert shares[2] > 0.6 * object_
    everywhere = [drawn(camera)[1] for camera in around]
    assert unseen_share(view_of(drawn, around[12]), tuple(around), everywhere) == 0


def test_moments_begin_with_the_static_orbits():
    times = (*np.linspace(0, 1, 9).tolist(), *[0.25] * 9)
    found = moments(times)
    assert found[0] == 0.25 and len(set(found)) == len(found) == 2
    assert moments((0.0,) * 4) == [0.0]


@pytest.fixture(scope="module")
def footage(tmp_path_factory, make_dataset):
    """Six frames of 48 x 48 of one asset, in one orbit."""
    return make_dataset(tmp_path_factory.mktemp("complete") / "dataset", assets=1, n_frames=6, size=48)


def test_the_whole_command_completes_and_reports(footage, tiny_svd, tmp_path):
    arguments = [
        "recon4d", f"{footage}:asset-000:Run", "--out", str(tmp_path / "scene"), "--preset", "fast",
        "--steps", "20", "--threads", "1", "--resolution", "48", "--complete", "--model", str(tiny_svd),
        "--complete-views", "2",
    ]  # fmt: skip
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "held out: PSNR" in result.output
    record = json.loads((tmp_path / "scene" / "metrics.json").read_text())["completion"]
    assert record["completed"] == 2 and record["prior"] == "random weights" and record["seconds"] > 0
    cameras = [replace(orbit(1)[0], c2w=np.array(about["c2w"])) for about in record["made"]]
    # At one time or another, none shows what another does.
    assert _angle(*cameras) >= APART_DEG
    assert all((about["schedule"], about["v_from"]) == ("closed", "default") for about in record["made"])
    assert all(0 <= about["seen"] <= 1 and about["missing"] > 0 for about in record["made"])
    assert {"psnr", "ssim", "views"} == set(record["before"]["all"]) == set(record["after"]["all"])
    assert (tmp_path / "scene" / "first" / "scene.json").is_file()
    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 0 and "already finished" in again.output


def test_options_that_do_not_go_together_are_refused(footage, tmp_path):
    place = f"{footage}:asset-000:Run"
    alone = CliRunner().invoke(command, ["recon4d", place, "--out", str(tmp_path / "s"), "--complete"])
    assert alone.exit_code == 2 and "go together" in alone.output
    absent = ["--complete", "--model", str(tmp_path / "absent")]
    result = CliRunner().invoke(command, ["recon4d", place, "--out", str(tmp_path / "s"), *absent])
    assert isinstance(result.exception, InputError) and "no such folder" in str(result.exception)
