"""`orbit4d novel-view`, whole: every kind of input and model, and every refusal with nothing written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from orbit4d.app.cli import command as umbrella
from orbit4d.compose.cli.novel_view import command
from orbit4d.compose.completion.depths import estimated
from orbit4d.compose.completion.inputs import Given, read_inputs
from orbit4d.compose.completion.novel_view import Made, Request, released_numbers
from orbit4d.compose.completion.routes import Asked, route
from orbit4d.compose.completion.seen import sight
from orbit4d.compose.completion.sources import as_source
from orbit4d.compose.completion.view import view_of
from orbit4d.compose.completion.writing import shown
from orbit4d.datasets import orbit
from orbit4d.datasets.cameras.transforms import cameras_record, read_transforms
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import read_video
from orbit4d.model.guided.modes import Settings
from orbit4d.recon4d import reconstruct
from orbit4d.recon4d.fitting.settings import PRESETS


def call(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments])


def done(*arguments):
    result = call(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture
def picture(tmp_path, drawn):
    """An image with alpha, 64 x 64, seen from the front, and its depth."""
    rgba, depth = drawn(orbit(1, size=(64, 64))[0])
    Image.fromarray(rgba).save(tmp_path / "ball.png")
    np.save(tmp_path / "ball.npy", depth)
    return tmp_path / "ball.png", tmp_path / "ball.npy"


def test_an_image_becomes_a_video_with_all_it_promises(picture, tiny_svd, tmp_path):
    image, depth = picture
    out = tmp_path / "view.mp4"
    said = done(image, "--depth", depth, "--model", tiny_svd, "--out", out, "--steps", 3, "--keep-warp")
    assert "seen" in said and "4 frames, 3 steps" in said
    assert read_video(out).frames.shape == (4, 64, 64, 3)
    names = {
        p.relative_to(tmp_path / "view").as_posix() for p in (tmp_path / "view").rglob("*") if p.is_file()
    }
    kinds = ("frames", "seen", "confidence", "warp")
    assert names == {"transforms.json", *(f"{kind}/{i:03d}.png" for kind in kinds for i in range(4))}
    report = json.loads((tmp_path / "view.json").read_text())
    assert report["prior"] == "random weights" and report["kind"] == "svd"
    assert np.shape(report["lambda"]) == (3, 4) and len(report["sigmas"]) == 4
    assert report["v"] == [0.001, 1000.0, 10.0] and report["v_from"] == "default"
    assert report["distances"][0] == 0 and max(report["distances"]) == 1
    assert report["evaluations"] == 3 and report["seconds"]["per_step"] > 0
    assert report["given"] == [True, False, False, False] and report["seen_pixels"][0] == 1
    # The quarter turns of an orbit of four see less and less; the back sees nothing of the front.
    assert report["seen_pixels"][1] > report["seen_pixels"][2] == 0
    record = read_transforms(tmp_path / "view" / "transforms.json")
    assert record.times == (0.0,) * 4
    for camera, true in zip(record.cameras, orbit(4, size=(64, 64))):
        assert np.allclose(camera.c2w, true.c2w)
    confidence = np.asarray(Image.open(tmp_path / "view" / "confidence" / "000.png"))
    assert (confidence == 255).all()
    seen = np.asarray(Image.open(tmp_path / "view" / "seen" / "001.png"))
    later = np.asarray(Image.open(tmp_path / "view" / "confidence" / "001.png"))
    assert set(np.unique(seen)) == {0, 255} and later[seen == 255].mean() > later[seen == 0].max()
    # The image's alpha is warped with it: clear where nothing is seen, as the report says.
    warp = np.asarray(Image.open(tmp_path / "view" / "warp" / "001.png"))
    assert set(np.unique(warp[..., 3])) == {0, 255} and not warp[warp[..., 3] == 0].any()
    assert report["alpha"] == {
        "warp": "premultiplied RGBA", "composed_on": [255, 255, 255], "frames": "opaque",
    }  # fmt: skip
    assert "alpha is warped with the colours" in said
    # A finished one is not replaced unasked.
    again = call(image, "--depth", depth, "--model", tiny_svd, "--out", out)
    assert "is there already" in str(again.exception)


def test_full_weight_keeps_the_input_in_its_own_frame(picture, tiny_svd, monkeypatch):
    """Compared at latents: the video decoder mixes frames."""
    from orbit4d.compose.completion.novel_view import Request, make
    from orbit4d.model.guided.models.svd import SVD

    image, depth = picture
    model, latents = SVD.load(str(tiny_svd)), []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda x: latents.append(x) or decode(x))
    asked = Request((str(image),), "svd", depth=depth, path="ellipse:0.5,2,5", schedule="infinite", steps=2)
    made = make(asked, model)
    known = model.encode(made.sight.frames)
    assert np.allclose(latents[0][:, :, 0], known[:, :, 0], atol=1e-4)
    seen = made.sight.latent_seen
    assert seen[0].all() and 0 < seen[1].mean() < 1
    assert np.allclose(latents[0][0][:, seen], known[0][:, seen], atol=1e-4)
    assert not np.allclose(latents[0][0][:, ~seen], known[0][:, ~seen], atol=1e-2)


@pytest.mark.parametrize("mode", ["posterior", "worldforge", "repo-posterior", "none"])
@pytest.mark.parametrize("warp", ["ours", "repo-single"])
def test_modes_and_rules_run(picture, tiny_svd, tmp_path, mode, warp):
    image, depth = picture
    how = ("--model", tiny_svd, "--out", tmp_path / "view.mp4", "--steps", 2, "--mode", mode, "--warp", warp)
    done(image, "--depth", depth, *how, "--path", "ellipse:0.2,2,5", "--schedule", "closed")
    report = json.loads((tmp_path / "view.json").read_text())
    assert report["mode"] == mode and report["schedule"] == ("none" if mode == "none" else "closed")


def test_a_clip_of_a_dataset_brings_all_it_needs(depth_dataset, tiny_svd, tmp_path):
    out = tmp_path / "view.mp4"
    done(f"{depth_dataset}:ball", "--model", tiny_svd, "--out", out, "--steps", 2, "--schedule", "infinite")
    assert json.loads((tmp_path / "view.json").read_text())["depth"] == "pass"
    done(
        f"{depth_dataset}:ball", "--model", tiny_svd, "--out", out, "--steps", 2, "--overwrite",
        "--path", "dynamic_orbit",
    )  # fmt: skip
    record = read_transforms(tmp_path / "view" / "transforms.json")
    assert np.allclose(record.times, [0, 1 / 3, 2 / 3, 1])


def test_several_images_are_joined(drawn, tiny_svd, tmp_path):
    cameras = [orbit(24, size=(64, 64))[i] for i in (0, 3)]
    (tmp_path / "depth").mkdir()
    for i, camera in enumerate(cameras):
        rgba, depth = drawn(camera)
        Image.fromarray(rgba).save(tmp_path / f"{i}.png")
        np.save(tmp_path / "depth" / f"{i}.npy", depth)
    (tmp_path / "cameras.json").write_text(json.dumps(cameras_record(cameras, [0, 0])))
    images = (tmp_path / "0.png", tmp_path / "1.png")
    how = ("--depth", tmp_path / "depth", "--model", tiny_svd, "--out", tmp_path / "v.mp4", "--steps", 2)
    done(*images, *how, "--cameras", tmp_path / "cameras.json")
    report = json.loads((tmp_path / "v.json").read_text())
    assert report["path"] == "between" and report["given"] == [True, False, False, True]
    assert report["distances"][0] == report["distances"][3] == 0
    assert "need --cameras" in str(call(*images, *how, "--overwrite").exception)


@pytest.fixture
def disparity(monkeypatch):
    """`disparity(views)`: the network says a (1 / z) + b of the true depths of views."""
    from orbit4d.model.guided.depth import network

    def say(views):
        true = np.stack([view.depth for view in views])
        values = ((1 / true - 0.05) / 0.4).astype(np.float32)
        monkeypatch.setattr(network, "estimate_depth", lambda *_: network.Estimate(values, False, "mit"))
        return true

    return say


def test_a_networks_depth_is_fitted_to_what_several_posed_images_share(drawn, disparity, capsys):
    """Scale and shift come out of matched points, to 3 % as one step of the sweep; a guess would be off."""
    views = [_view(drawn, orbit(24, size=(64, 64))[i]) for i in range(3)]
    true = disparity(views)
    posed = Given(tuple(replace(view, depth=None) for view in views), False)
    asked = Request((), "", depth_model="any")
    maps, about = estimated(asked, posed)
    solid = np.stack([view.alpha > 0.5 for view in views])
    assert np.median(np.abs(np.stack(maps) / true - 1)[solid]) < 0.03
    assert "points matched" in about["depth_scale"] and "points matched" in capsys.readouterr().out
    guess, told = estimated(replace(asked, depth_centre=1.5), posed)
    assert "a guess" in told["depth_scale"]
    assert np.median(np.abs(np.stack(guess) / true - 1)[solid]) > 0.03
    # Known depths come first; flat images share nothing to fit.
    known, told = estimated(asked, replace(posed, views=(views[0], *posed.views[1:])))
    assert "known depths" in told["depth_scale"] and np.allclose(known[2][solid[2]], true[2][solid[2]], 1e-3)
    flat = tuple(replace(v, image=np.full_like(v.image, 0.5), alpha=None) for v in posed.views)
    with pytest.raises(InputError, match=r"0 points matched .* --depth-centre"):
        estimated(asked, replace(posed, views=flat))


def test_a_video_keeps_its_times(drawn, tiny_svd, tmp_path):
    folder, depths = tmp_path / "clip", tmp_path / "depth"
    folder.mkdir()
    depths.mkdir()
    rgba, depth = drawn(orbit(1, size=(64, 64))[0])
    for i in range(6):
        Image.fromarray(rgba).save(folder / f"{i}.png")
        np.save(depths / f"{i}.npy", depth)
    how = ("--model", tiny_svd, "--steps", 2, "--out", tmp_path / "view.mp4")
    # Of six frames the model's four are taken, evenly spread; so are depths of as many.
    result = call(folder, "--depth", depths, *how)
    assert "6 depth maps for 4 images" in str(result.exception) or result.exit_code == 0


def test_a_scene_is_filmed_and_seen_from_elsewhere(make_dataset, tiny_svd, tmp_path):
    """SCENE brings cameras and depth; on `dynamic_orbit` its times too. Nothing beside it is taken."""
    settings = replace(PRESETS["fast"], n_gaussians=300, coarse_steps=20, fine_steps=5, resolution=48)
    settings = replace(settings, deformation={"kind": "nodes", "n_nodes": 20, "width": 16})
    dataset = make_dataset(tmp_path / "dataset", assets=1, n_frames=6, size=48)
    scene = reconstruct(f"{dataset}:asset-000:Run", tmp_path / "scene", settings=settings, threads=1)
    first = read_inputs((str(tmp_path / "scene"),), None, "orbit")
    assert first.scene and len(first.views) == 1 and np.isfinite(first.views[0].solid_depth).any()
    assert np.allclose(first.views[0].camera.c2w, scene.cameras[0].c2w)
    how = ("--model", tiny_svd, "--steps", 1, "--schedule", "infinite", "--overwrite")
    out = tmp_path / "view.mp4"
    for path, moving in (("ellipse:0.3,2,5", False), ("dynamic_orbit", True)):
        done(tmp_path / "scene", *how, "--out", out, "--path", path)
        report = json.loads(out.with_suffix(".json").read_text())
        assert report["depth"] == "scene" and report["path"] == path
        times = read_transforms(tmp_path / "view" / "transforms.json").times
        assert (times[-1] == 1.0) == moving and times[0] == 0
        # The object is seen from beside it, by the fit's own depth.
        assert max(report["seen_pixels"][1:]) > 0.02
    with pytest.raises(InputError, match="a scene brings its own"):
        read_inputs((str(tmp_path / "scene"),), tmp_path / "view" / "transforms.json", "orbit")


def test_a_small_object_leaves_latents_that_guide(drawn):
    """32 pixels and latents of 4, as the tiny preset's: both neighbours of the given view see some."""
    given = Given((_view(drawn, orbit(8, size=(32, 32))[0]),), False)
    way = route(Asked("orbit", 8, (32, 32)), given)
    seen = sight(given, way, False, 4, 1, (255, 255, 255)).latent_seen.sum((1, 2))
    assert seen[0] == 64 and min(seen[1], seen[7]) >= 3 and seen[4] == 0


def _view(drawn, camera, name="view"):
    rgba, depth = drawn(camera)
    return replace(view_of(rgba, name), camera=camera, depth=depth)


def test_released_numbers_follow_the_kind_of_input(drawn):
    one = _view(drawn, orbit(24, size=(64, 64))[0])
    for views, video, clamp, row in (
        ((one,), False, 0.2, 32),
        ((one,) * 2, False, 0.4, 24),
        ((one,) * 4, True, 0.6, 24),
    ):
        found = released_numbers(Settings(soften=16.0), Given(views, video), 8)
        assert (found.clamp, found.tile_row, found.soften) == (clamp, row, 2.0)


def test_composing_commutes_with_the_warp(drawn):
    """A warp of premultiplied RGBA laid on a colour is the warp of the image that lies on it already."""
    camera = orbit(24, size=(64, 64))[0]
    view = _view(drawn, camera)
    soft = np.linspace(0.55, 1, 64, dtype=np.float32)[:, None] * view.alpha
    view = replace(view, alpha=soft)
    way = route(Asked("ellipse:0.3,2,4", 4, (64, 64)), Given((view,), False))
    alphas = []
    for background in ((255, 255, 255), (10, 90, 30)):
        opaque = replace(
            view, image=view.on(background), alpha=None, depth=np.where(soft > 0.5, view.depth, np.inf)
        )
        both = [sight(Given((v,), False), way, False, 8, 1, background) for v in (view, opaque)]
        assert np.array_equal(both[0].seen, both[1].seen) and both[1].alpha is None
        assert 0.1 < both[0].seen[3].mean() < 0.9
        assert np.abs(both[0].frames - both[1].frames)[both[0].seen].max() < 1e-5
        alphas.append(both[0].alpha)
        made = Made(None, way, both[0], background, {})
        straight = shown(made)[1:][both[0].seen[1:]]
        assert straight[:, 3].min() > 0.5 and straight[:, 3].max() <= 1
        # What is stored is straight again: laid on the background it is what the model was shown.
        behind = np.array(background) / 255
        again = straight[:, :3] * straight[:, 3:] + behind * (1 - straight[:, 3:])
        assert np.abs(again - both[0].frames[1:][both[0].seen[1:]]).max() < 1e-5
    assert np.array_equal(*alphas)
    half = replace(view, image=np.repeat(np.repeat(view.image, 4, 0), 4, 1))
    fine = replace(
        half, alpha=np.repeat(np.repeat(soft, 4, 0), 4, 1), camera=camera.resized(256, 256),
        depth=np.repeat(np.repeat(view.depth, 4, 0), 4, 1),
    )  # fmt: skip
    reduced = as_source(fine, camera, with_alpha=True)
    assert np.allclose(reduced.image, view.premultiplied, atol=1e-6)
    assert np.array_equal(reduced.depth, view.solid_depth)


def test_wan_and_an_orbit_run_make_views_too(picture, tiny_wan, tmp_path):
    image, depth = picture
    done(
        image, "--depth", depth, "--model", tiny_wan, "--out", tmp_path / "w.mp4", "--frames", 5,
        "--size", "64", "--steps", 2, "--path", "ellipse:0.3,2,4",
    )  # fmt: skip
    report = json.loads((tmp_path / "w.json").read_text())
    assert report["kind"] == "wan" and np.shape(report["lambda"]) == (2, 2)
    assert read_video(tmp_path / "w.mp4").frames.shape == (5, 64, 64, 3)


@pytest.fixture
def refused(tmp_path, capsys):
    """`refused(words, ...)`: the command, run as a shell does, says one line, exits 2 and writes nothing."""

    def check(words, *arguments):
        before = sorted(tmp_path.rglob("*"))
        out = tmp_path / "new" / "no.mp4"
        code = run(umbrella, ["novel-view", *map(str, arguments), "--out", str(out)], "orbit4d")
        said = capsys.readouterr().err.strip()
        assert code == 2 and said.startswith("error: ") and "\n" not in said and "\r" not in said, said
        assert words in said, said
        assert sorted(tmp_path.rglob("*")) == before

    return check


def test_bad_input_is_one_line_and_nothing_is_written(picture, tiny_svd, tmp_path, refused):
    image, depth = picture
    good = np.load(depth)
    model = ("--model", tiny_svd, "--steps", 1)
    known = (image, "--depth", depth, *model)
    np.save(tmp_path / "small.npy", good[:32])
    refused("depth is 64x32, its image is 64x64", image, "--depth", tmp_path / "small.npy", *model)
    for name, value, words in (
        ("nan", np.nan, "1 values are NaN"),
        ("negative", -1, "1 values are negative"),
    ):
        bad = good.copy()
        bad[0, 0] = value
        np.save(tmp_path / f"{name}.npy", bad)
        refused(words, image, "--depth", tmp_path / f"{name}.npy", *model)
    np.save(tmp_path / "empty.npy", np.full_like(good, np.inf))
    refused("no value is finite", image, "--depth", tmp_path / "empty.npy", *model)
    refused("no depth", image, *model)
    refused("no such image", tmp_path / "absent.png", *model)
    refused("no such folder", image, "--depth", depth, "--model", tmp_path / "absent")
    refused("model_index.json", image, "--depth", depth, "--model", tmp_path)
    refused("4 frames", *known, "--frames", 5)
    refused("multiples of 8", *known, "--size", "60x64")
    refused("write 3 numbers", *known, "--path", "ellipse:1,2")
    refused("--path spiral", *known, "--path", "spiral")
    refused("two inputs", *known, "--path", "between")
    refused("inside the object", *known, "--path", "line:0.3,0,0.02")
    refused("write three positive numbers", *known, "--v", "1,2")
    refused("no root is valid", *known, "--schedule", "repo", "--v", "0.1,1,1")
    refused("--schedule cubic", *known, "--schedule", "cubic")
    turned = [type(c)(_turned(c.c2w), *c.intrinsics) for c in orbit(4, size=(64, 64), azimuth0_deg=180.0)]
    (tmp_path / "away.json").write_text(json.dumps(cameras_record(turned, [0] * 4)))
    refused("sees nothing of the input", *known, "--path", tmp_path / "away.json")
    # The path goes around a point far behind the object, which it leaves beside every frame.
    beside = ("--path", "line:50,10,60", "--radius", 60)
    refused("largest seen share 0 %, the path goes 61.6 units", *known, *beside)
    (tmp_path / "two.json").write_text(json.dumps(cameras_record(orbit(2, size=(64, 64)), [0, 0])))
    refused("2 cameras for 1 images", *known, "--cameras", tmp_path / "two.json")
    refused("2 cameras for 4 frames", *known, "--path", tmp_path / "two.json")


def _turned(c2w):
    """A pose that looks the other way."""
    return c2w @ np.diag([-1.0, 1.0, -1.0, 1.0])
