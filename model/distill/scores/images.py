"""Priors conditioned on text: Stable Diffusion over images, alone and steered by a tile ControlNet, and
text-to-video networks (ModelScope, Zeroscope) over clips.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill.scores.conditions import Conditions, check_images
from orbit4d.model.distill.scores.latent import CLIP_AXES, LatentScore
from orbit4d.model.distill.scores.table import NoiseTable
from orbit4d.model.distill.scores.text import Prompts

#: Prompt of the control branch unless a caller says otherwise (HeliosZhao/Animate124).
CONTROL_PROMPT = "best quality, high resolution"


class ImageScore(LatentScore):
    """A text-to-image model: z [B, C, h, w], conditioned on a prompt."""

    takes = frozenset({"prompt", "negative"})

    def __init__(
        self, name: str, source: str, network: nn.Module, autoencoder: Any, table: NoiseTable,
        prompts: Prompts, **rest: Any,
    ) -> None:  # fmt: skip
        super().__init__(name, source, network, autoencoder, table, **rest)
        self.prompts = prompts

    def condition(self, **named: Any) -> Conditions:
        """`prompt` and `negative` (empty by default), one text or one per sample.

        Raises:
            InputError: no prompt, a learned word without its file, or a condition it cannot take.
        """
        self._take(named)
        cond = self.prompts.tokens(texts_of(self.name, named.get("prompt")))
        uncond = self.prompts.tokens(texts_of(self.name, named.get("negative") or ""))
        return Conditions({"encoder_hidden_states": cond}, {"encoder_hidden_states": uncond})


class ClipScore(ImageScore):
    """A text-to-video model: z [B, C, F, h, w], conditioned on a prompt; one t for all frames of a clip."""

    axes = CLIP_AXES


class TileScore(ImageScore):
    """Stable Diffusion under a tile ControlNet: structure from `control`, appearance from the prompt.

    The control branch has its own prompt. The control image is [0, 1], not [-1, 1].
    """

    takes = frozenset({"prompt", "negative", "control", "control_prompt"})

    def __init__(self, *parts: Any, control: nn.Module, control_scale: float = 1.0, **rest: Any) -> None:
        super().__init__(*parts, **rest)
        self.control, self.control_scale = control.eval().requires_grad_(False), control_scale

    def condition(self, **named: Any) -> Conditions:
        """`prompt`, `negative`, `control` [B or 1, 3, H, W] in [0, 1], `control_prompt`.

        Raises:
            InputError: as `ImageScore.condition`; no control image.
        """
        text = super().condition(**{key: named.get(key) for key in ("prompt", "negative")})
        self._take(named)
        if named.get("control") is None:
            raise InputError(f"{self.name}: needs a control image")
        said = named.get("control_prompt")
        said = CONTROL_PROMPT if said is None else said
        known = self.prompts.tokens(texts_of(self.name, said))
        image = check_images(named["control"], f"{self.name}: control")
        if tuple(image.shape[-2:]) != self.size:
            image = functional.interpolate(image, self.size, mode="bilinear", align_corners=False)
        branches = []
        for states, control_states in (
            (text.cond, known),
            (text.uncond, text.uncond["encoder_hidden_states"]),
        ):
            branches.append({**states, "control": image, "control_states": control_states})
        return Conditions(*branches)

    def _output(self, z_t: Tensor, t: Tensor, known: dict[str, Tensor]) -> Tensor:
        down, middle = self.control(
            z_t,
            t,
            encoder_hidden_states=known["control_states"],
            controlnet_cond=known["control"],
            conditioning_scale=self.control_scale,
            return_dict=False,
        )
        output: Tensor = self.network(
            z_t,
            t,
            encoder_hidden_states=known["encoder_hidden_states"],
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        return output

    def _networks(self) -> tuple[nn.Module, ...]:
        return (self.control, self.network)


def texts_of(name: str, given: Any) -> list[str]:
    """A prompt as a list of texts; InputError for none."""
    texts = [given] if isinstance(given, str) else list(given or ())
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name}: needs a prompt (a text, or one per sample)")
    return texts
