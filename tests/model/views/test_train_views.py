"""Training the view module: the base stays, a killed run continues to the bit, a cache changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import read_video
from orbit4d.model import OrbitUNet, OrbitWan, TrainConfig, override, preset, train
from orbit4d.model.network.build import build_views
from orbit4d.model.sampling.multicam import MulticamRequest, multicam
from orbit4d.model.views.encode import encode_scenes

MICRO = {
    "patch_size": [1, 1, 1], "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2,
    "ffn_dim": 24, "freq_dim": 16, "text_dim": 8, "view_blocks": [0],
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> str:
    out = tmp_path_factory.mktemp("views") / "d"
    return str(make_dataset(out, assets=12, n_frames=4, size=16, orbits=4, actions=("Run",)))


def micro(*more: str) -> TrainConfig:
    sets = [
        "data.resolution=16", "optim.effective_batch=2", "optim.batch=2", "checkpoint_every=1",
        "validate_every=2", "validate_clips=1", "optim.warmup=0", "optim.ema=0.5", "data.latents=fly",
        "views.multi=0.5", "views.images=0.3", "views.single=0.2",
    ]  # fmt: skip
    config = override(preset("sync-tiny"), [*sets, *more])
    stages = (replace(config.stages[0], steps=2), replace(config.stages[1], steps=4))
    return replace(config, model=replace(config.model, wan=MICRO), stages=stages)


def losses(run: Path) -> list[Any]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["stage"], row["loss"], row.get("val_loss")) for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return OrbitWan.from_pretrained(run / "model" / "network").state_dict()


@pytest.fixture(scope="module")
def finished(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "r"
    torch.set_num_threads(1)
    train(micro(), dataset, run)
    return run


@pytest.fixture(scope="module")
def base_run(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first stage alone, of a network without a part for motion, as runs before it had."""
    run, config = tmp_path_factory.mktemp("base") / "r", micro("views.motion=false", "loss.drop_motion=0")
    train(replace(config, stages=config.stages[:1]), dataset, run)
    return run


def test_stages_train_what_they_say(finished: Path, base_run: Path) -> None:
    rows = losses(finished)
    assert [row[1] for row in rows] == ["single"] * 2 + ["views"] * 4
    assert all(row[2] > 0 for row in rows)
    base, both = weights(base_run), weights(finished)
    assert all(torch.equal(base[k], both[k]) for k in base if k.startswith("wan."))
    assert any(not torch.equal(base[k], both[k]) for k in base if k.startswith("view_sync."))
    assert not any(k.startswith("motion_embedding.") for k in base)
    assert both["motion_embedding.mlp.2.weight"].any()


def test_motion_is_told_and_begins_at_nothing(finished: Path, base_run: Path, dataset: str) -> None:
    told = json.loads((finished / "motion.json").read_text())
    assert told["clips"] > 1 and told["mean_log10"] < 0
    trained = OrbitWan.from_pretrained(finished / "model" / "network").eval()
    assert float(trained.motion_mean) == pytest.approx(told["mean_log10"], rel=1e-6)
    assert float(trained.motion_std) == pytest.approx(told["std_log10"], rel=1e-6)
    # An older run takes the part for motion on, which adds exactly nothing.
    older = micro("views.motion=true")
    net = build_views(replace(older, model=replace(older.model, init=str(base_run))), 48)
    assert isinstance(net, OrbitWan) and net.motion_embedding is not None
    x, camera, t = torch.randn(2, 48, 4, 4, 4), torch.randn(2, 4, 12), torch.full((2,), 500.0)
    with torch.no_grad():
        for network, same in ((net.eval(), True), (trained, False)):
            with_it = network(x, t, camera=camera, views=2, motion=[0.02, 0.02]).sample
            without = network(x, t, camera=camera, views=2).sample
            assert torch.equal(with_it, without) == same
            unknown = network(x, t, camera=camera, views=2, motion=[None, None]).sample
            assert torch.equal(unknown, without)


@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_run_is_the_same_to_the_bit(
    finished: Path, dataset: str, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbit4d.model.training import train as loop

    done = {"steps": 0}
    step = loop.optimizer_step

    def interrupted(*args: Any) -> Any:
        if done["steps"] == stop:
            raise KeyboardInterrupt
        done["steps"] += 1
        return step(*args)

    monkeypatch.setattr(loop, "optimizer_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(micro(), dataset, tmp_path / "r")
    monkeypatch.setattr(loop, "optimizer_step", step)
    train(micro("data.workers=1"), dataset, tmp_path / "r", resume=True)
    assert losses(tmp_path / "r") == losses(finished)
    first, again = weights(finished), weights(tmp_path / "r")
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_cache_gives_the_same_losses(finished: Path, dataset: str, tmp_path: Path) -> None:
    # Augmentation is of pixels alone; without it both see the same.
    plain = ("data.augment=[]", f"data.latents_folder={tmp_path / 'cache'}", "data.latents=cache")
    said = encode_scenes(dataset, micro(*plain))
    assert said.startswith("encoded ") and "0 were there" in said
    assert "encoded 0 clips" in encode_scenes(dataset, micro(*plain))
    train(micro(*plain), dataset, tmp_path / "cached")
    train(micro("data.augment=[]"), dataset, tmp_path / "pixels")
    cached, pixels = losses(tmp_path / "cached"), losses(tmp_path / "pixels")
    assert [row[2] for row in cached] == pytest.approx([row[2] for row in pixels], abs=1e-6)
    with pytest.raises(InputError, match="holds no latents of these settings"):
        train(micro(*plain, "data.frames=3"), dataset, tmp_path / "other")


def test_old_run_resumes_with_its_own_settings(base_run: Path, dataset: str, tmp_path: Path) -> None:
    old = micro("views.motion=false", "loss.drop_motion=0")
    old = replace(old, stages=old.stages[:1])
    shutil.copytree(base_run, tmp_path / "r")
    settings = json.loads((tmp_path / "r" / "config.json").read_text())
    for name in ("motion", "still_camera"):
        # A run that was started before these were settings.
        del settings["views"][name]
    (tmp_path / "r" / "config.json").write_text(json.dumps(settings))
    train(old, dataset, tmp_path / "r", resume=True)
    before, after = weights(base_run), weights(tmp_path / "r")
    assert all(torch.equal(before[k], after[k]) for k in before)
    now = replace(old, views=replace(old.views, motion=True))
    with pytest.raises(InputError, match=r"views\.motion=false, now asked for true"):
        train(now, dataset, tmp_path / "r", resume=True)


def test_init_freezes_the_base_of_another_run(finished: Path, dataset: str, tmp_path: Path) -> None:
    config = micro("optim.ema=0")
    config = replace(config, stages=config.stages[1:], model=replace(config.model, init=str(finished)))
    train(config, dataset, tmp_path / "more")
    before, after = weights(finished), weights(tmp_path / "more")
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("wan."))
    moved = [k for k in before if k.startswith("view_sync.") and not torch.equal(before[k], after[k])]
    assert moved
    with pytest.raises(InputError, match="give --init"):
        train(replace(config, model=replace(config.model, init="")), dataset, tmp_path / "none")


def test_multicam_of_a_run(finished: Path, tmp_path: Path) -> None:
    request = MulticamRequest(rig="ring:3", steps=2, seed=1, motion="q0.5")
    (folder,) = multicam(str(finished), str(tmp_path / "out"), request)
    videos = [read_video(folder / "views" / f"cam0{k}.mp4").frames for k in (1, 2, 3)]
    assert all(video.shape == (4, 16, 16, 3) for video in videos)
    again = multicam(str(finished), str(tmp_path / "again"), replace(request, branches="1"))
    first = (folder / "views" / "cam02" / "003.png").read_bytes()
    assert (again[0] / "views" / "cam02" / "003.png").read_bytes() == first
    with pytest.raises(InputError, match="knows no captions"):
        multicam(str(finished), str(tmp_path / "text"), replace(request, text="a ball"))


def test_views_on_an_orbit_unet(dataset: str, tmp_path: Path, small_unet: Callable[..., OrbitUNet]) -> None:
    unet = small_unet(in_channels=48, out_channels=48, block_out_channels=(32, 32),
                      down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
                      up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"))  # fmt: skip
    unet.save_pretrained(tmp_path / "base")
    config = override(
        preset("sync-orbit"),
        [
            f"model.init={tmp_path / 'base'}", "model.autoencoder=unshuffle:4", "model.text_encoder=",
            "data.resolution=16", "data.frames=4", "optim.effective_batch=1", "optim.batch=1", "steps=2",
            "optim.precision=no", "views.count=3", "data.workers=0", "optim.lr=0.01", "views.multi=1",
            "views.images=0", "views.single=0",
        ],
    )  # fmt: skip
    train(config, dataset, tmp_path / "run")
    assert all(row[2] > 0 for row in losses(tmp_path / "run"))
    after = OrbitUNet.from_pretrained(tmp_path / "run" / "model" / "network")
    before, trained = unet.state_dict(), after.state_dict()
    assert all(torch.equal(before[key], trained[key]) for key in before)
    assert any(p.projector.weight.any() for p in after.view_places)
    request = MulticamRequest(rig="ring:2", steps=2, size=(16, 16))
    (folder,) = multicam(str(tmp_path / "run"), str(tmp_path / "out"), request)
    assert read_video(folder / "views" / "cam02.mp4").frames.shape == (4, 16, 16, 3)
