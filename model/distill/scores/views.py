"""Zero-1-to-3 as a prior over views of an object, given one reference view and the way to the camera.

Liu et al. 2023. The token is Linear([CLIP vector of the reference 768, relative pose 4]); the reference's
latents are concatenated behind the noisy ones, at their own scale (the released code does not multiply them).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill.scenes.pose import relative_pose as relative_pose
from orbit4d.model.distill.scores.conditions import Conditions, check_images
from orbit4d.model.distill.scores.latent import LatentScore
from orbit4d.model.distill.scores.table import NoiseTable
from orbit4d.model.encoders.text_and_image import ClipImageEncoder
from orbit4d.model.weights.files import read_tensors
from orbit4d.model.weights.hub import hub_file

#: Where repositories keep the linear layer, and the names of its file.
PROJECTIONS = ("clip_camera_projection", "cc_projection")
_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
    "model.safetensors",
)
_PREFIX = re.compile(r"^(proj|cc_projection|projection)\.")
#: Stable Zero123 tells the reference's polar angle where the others tell the difference of distances.
_STABLE = re.compile(r"stable[-_ ]?zero", re.IGNORECASE)


class ViewScore(LatentScore):
    """Views z [B, C, h, w] of an object on white, conditioned on a reference view and both cameras."""

    takes = frozenset({"reference", "reference_camera", "camera"})

    def __init__(
        self, name: str, source: str, network: nn.Module, autoencoder: Any, table: NoiseTable,
        image_encoder: ClipImageEncoder, projection: nn.Linear, stable: bool = False, **rest: Any,
    ) -> None:  # fmt: skip
        super().__init__(name, source, network, autoencoder, table, **rest)
        self.image_encoder, self.projection, self.stable = image_encoder, projection, stable
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def condition(self, **named: Any) -> Conditions:
        """`reference` [3, H, W] or [1, 3, H, W] on white, centred; `reference_camera` (elevation, azimuth,
        distance); `camera` [B, 3] the same of what is asked.

        Raises:
            InputError: no reference, or cameras that cannot be.
        """
        self._take(named)
        if named.get("reference") is None or named.get("camera") is None:
            raise InputError(f"{self.name}: needs a reference view and the cameras that are asked")
        vector, latents = self._looked_at(named["reference"])
        cameras = torch.as_tensor(named["camera"], dtype=torch.float32).reshape(-1, 3)
        at = named.get("reference_camera")
        pose = relative_pose(cameras, (0.0, 0.0, 2.0) if at is None else at, self.stable)
        parts = torch.cat([vector.expand(len(pose), -1), pose.to(vector)], dim=1)
        token = self.projection(parts.to(self.projection.weight.dtype))[:, None].float()
        return Conditions(
            {"encoder_hidden_states": token, "image": latents},
            {"encoder_hidden_states": torch.zeros_like(token), "image": torch.zeros_like(latents)},
        )

    def _looked_at(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """CLIP vector [1, D] and latents [1, C, h, w] of the reference, made once."""
        image = check_images(reference.reshape(-1, *reference.shape[-3:]), f"{self.name}: reference")
        if self._seen is None or self._seen[0].shape != image.shape or not torch.equal(self._seen[0], image):
            if tuple(image.shape[-2:]) != self.size:
                image_at_size = functional.interpolate(image, self.size, mode="bilinear", align_corners=False)
            else:
                image_at_size = image
            posterior = self.autoencoder.encode(
                (2 * image_at_size - 1).to(self.autoencoder.dtype)
            ).latent_dist
            vector = self.image_encoder.encode(image_at_size.float())
            self._seen = (image, vector.float(), posterior.mode().float())
        return self._seen[1], self._seen[2]

    def _output(self, z_t: Tensor, t: Tensor, given: dict[str, Tensor]) -> Tensor:
        both = torch.cat([z_t, given["image"]], dim=1)
        return self.network(both, t, encoder_hidden_states=given["encoder_hidden_states"]).sample  # type: ignore[no-any-return]


def is_stable(source: str) -> bool:
    """Whether a name says that this is Stable Zero123, whose fourth number means another thing."""
    return bool(_STABLE.search(source))


def load_projection(spec: str) -> nn.Linear:
    """The linear layer of a Zero-1-to-3 repository, in any of its three layouts.

    Raises:
        InputError: no such file, or other keys or shapes in it.
    """
    path = _projection_file(spec)
    tensors = {_PREFIX.sub("", key): value for key, value in read_tensors(path)[0].items()}
    if set(tensors) != {"weight", "bias"}:
        raise InputError(f"{path}: a camera projection has weight and bias, found {sorted(tensors)[:4]}")
    out, inside = tensors["weight"].shape
    layer = nn.Linear(inside, out)
    layer.load_state_dict({key: value.float() for key, value in tensors.items()})
    return layer.eval().requires_grad_(False)


def _projection_file(spec: str) -> Path:
    folder = Path(spec).expanduser()
    for home in PROJECTIONS:
        for name in _FILES:
            if folder.is_dir():
                if (folder / home / name).is_file():
                    return folder / home / name
            elif found := hub_file(spec, f"{home}/{name}", "camera projection"):
                return Path(found)
    raise InputError(f"{spec}: holds no camera projection ({' or '.join(PROJECTIONS)})")
