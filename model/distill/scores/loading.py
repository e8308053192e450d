"""`load_score`: a prior by its spec, for a slot. Nothing is replaced: what cannot be loaded is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.model.distill.score_model import ScoreModel
from orbit4d.model.distill.scores import parts
from orbit4d.model.distill.scores.images import ClipScore, ImageScore, TileScore
from orbit4d.model.distill.scores.latent import LatentScore
from orbit4d.model.distill.scores.published import CLIP_FRAMES, PUBLISHED, SLOT_WORDS, SLOTS, known
from orbit4d.model.distill.scores.runs import RunScore
from orbit4d.model.distill.scores.table import read_table
from orbit4d.model.distill.scores.text import Prompts
from orbit4d.model.distill.scores.views import ViewScore, is_stable, load_projection

#: Fills `analytic:` specs, which need Gaussians: (what stands behind the colon, slot) -> prior.
AnalyticFactory = Callable[[str, str], Any]
_analytic: list[AnalyticFactory] = []


@dataclass(frozen=True)
class _Home:
    """One repository, and what errors and logs call it."""

    spec: str
    name: str
    size: tuple[int, int] | None = None
    frames: int | None = None


def register_analytic(factory: AnalyticFactory) -> None:
    """Give `load_score` what opens `analytic:FILE` specs; the last one given is used."""
    _analytic[:] = [factory]


def load_score(
    spec: str,
    slot: str,
    *,
    base: str = "sd15",
    token: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> ScoreModel:
    """The prior of a slot ("2d", "3d", "video", "tile").

    spec: a short name (sd15, zero123, zero123-xl, modelscope, zeroscope, controlnet-tile), a hub name
        (org/name), a folder of a diffusers pipeline, `run:RUN` (a run of `orbit4d train`, for "3d" or
        "video"), or `analytic:FILE`.
    base: for "tile", the Stable Diffusion that the ControlNet steers, where the folder holds none.
    token: file of a learned word (textual inversion), for models with a text encoder.

    Raises:
        InputError: an unknown slot or spec, a model of another kind, tensors missing or of another shape, or
            the hub out of reach.
    """
    if slot not in SLOTS:
        raise InputError(f"prior slot {slot!r}: {or_known(slot, SLOTS)}")
    if spec.startswith("analytic:"):
        if not _analytic:
            raise InputError(f"{spec}: priors in closed form are opened by `orbit4d animate`")
        return _analytic[0](spec.removeprefix("analytic:"), slot)  # type: ignore[no-any-return]
    if spec.startswith("run:"):
        if slot not in ("3d", "video"):
            raise InputError(f"{spec}: a run makes orbit videos: no prior for the slot {slot}")
        return RunScore.load(spec.removeprefix("run:"), slot, device)
    facts = known(spec)
    if facts is not None and facts[1].slot != slot:
        raise InputError(
            f"{spec}: is {SLOT_WORDS[facts[1].slot]}, and the slot {slot} needs {SLOT_WORDS[slot]}"
        )
    home = _home(spec)
    score = _LOADERS[slot](home, base)
    if token is not None:
        if not isinstance(score, ImageScore):
            raise InputError(f"{token}: {score.name} has no text encoder that could learn a word")
        score.prompts.learn(token)
    return score.to(device, dtype)


def _home(spec: str) -> _Home:
    """The repository of a spec: for a short name the first hub name that answers."""
    facts = known(spec)
    if spec not in PUBLISHED:
        size, frames = (facts[1].size, facts[1].frames) if facts else (None, CLIP_FRAMES)
        if "/" not in spec and not Path(spec).expanduser().is_dir():
            raise InputError(
                f"prior {spec!r}: {or_known(spec, list(PUBLISHED))}, org/name, a folder, run:RUN"
            )
        return _Home(spec, facts[0] if facts else Path(spec).name, size, frames)
    published, refused = PUBLISHED[spec], None
    for name in published.hub:
        try:
            index = "config.json" if published.slot == "tile" else "unet/config.json"
            parts.part_file(name, index, "network")
            return _Home(name, spec, published.size, published.frames)
        except InputError as error:
            refused = refused or error
    raise InputError(f"prior {spec}: {refused}; or give the folder of a download") from refused


def _image(home: _Home, base: str) -> LatentScore:
    parts.check_folder(home.spec, ("unet", "vae", "text_encoder", "tokenizer", "scheduler"))
    return ImageScore(*_core(home, 4), Prompts.load(home.spec), kind=parts.kind_of(home.spec))


def _clip(home: _Home, base: str) -> LatentScore:
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

    parts.check_folder(home.spec, ("unet", "vae", "text_encoder", "tokenizer", "scheduler"))
    core = _core(home, 4, UNet3DConditionModel)
    kind = parts.kind_of(home.spec)
    return ClipScore(
        *core, Prompts.load(home.spec), size=home.size, frames=home.frames or CLIP_FRAMES, kind=kind
    )


def _view(home: _Home, base: str) -> LatentScore:
    from transformers import CLIPVisionModelWithProjection

    from orbit4d.model.encoders.text_and_image import ClipImageEncoder

    parts.check_folder(home.spec, ("unet", "vae", "image_encoder", "scheduler"))
    projection = load_projection(home.spec)
    tower = parts.load_part(CLIPVisionModelWithProjection, home.spec, "image_encoder", "image encoder")
    core = _core(home, 8)
    if projection.out_features != core[2].config["cross_attention_dim"]:
        raise InputError(f"{home.spec}: its camera projection does not fit its network")
    if projection.in_features != tower.config.projection_dim + 4:
        raise InputError(f"{home.spec}: its camera projection does not fit its image encoder")
    kind, stable = parts.kind_of(home.spec), is_stable(home.spec)
    return ViewScore(*core, ClipImageEncoder(tower), projection, stable, kind=kind)


def _tile(home: _Home, base: str) -> LatentScore:
    from diffusers.models.controlnets.controlnet import ControlNetModel

    whole = (Path(home.spec).expanduser() / "controlnet").is_dir()
    under = _Home(home.spec, home.name) if whole else _home(base)
    inside = "controlnet" if whole else ""
    control = parts.load_part(ControlNetModel, home.spec, inside, "ControlNet")
    parts.check_folder(under.spec, ("unet", "vae", "text_encoder", "tokenizer", "scheduler"))
    core = _core(_Home(under.spec, home.name), 4)
    kind = parts.kind_of(under.spec)
    return TileScore(*core, Prompts.load(under.spec), control=control, kind=kind)


_LOADERS: dict[str, Callable[[_Home, str], LatentScore]] = {
    "2d": _image,
    "3d": _view,
    "video": _clip,
    "tile": _tile,
}


def _core(home: _Home, channels: int, cls: Any = None) -> tuple[str, str, Any, Any, Any]:
    """Name, source, network, autoencoder and noise table of a pipeline.

    Raises:
        InputError: a network of another class or with another number of input channels.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    cls = cls or UNet2DConditionModel
    _check_class(home.spec, cls.__name__)
    table = read_table(home.spec)
    network = parts.load_part(cls, home.spec, "unet", "network")
    if network.config["in_channels"] != channels:
        raise InputError(
            f"{home.spec}: its network takes {network.config['in_channels']} channels, "
            f"this slot needs {channels}: a model for another use"
        )
    autoencoder = parts.load_part(AutoencoderKL, home.spec, "vae", "autoencoder")
    return home.name, home.spec, network, autoencoder, table


def _check_class(spec: str, wanted: str) -> None:
    import json

    path = parts.part_file(spec, "unet/config.json", "network")
    said = json.loads(Path(path).read_text(encoding="utf-8")).get("_class_name", wanted)
    if said != wanted:
        raise InputError(f"{spec}: its network is a {said}, this slot needs a {wanted}")
