"""The networks of a run with all branches of guidance: one pass, one step, one clean estimate."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from orbit4d.model.diffusion.guidance import Conditions, GuidanceWeights, guided_prediction, predict
from orbit4d.model.diffusion.losses import clean_estimate, residual_estimate
from orbit4d.model.guided.schedules import DiffusersSchedule
from orbit4d.model.sampling.asked import Asked
from orbit4d.model.sampling.working import sampling_dtype


def guided_pass(
    pipeline: Any,
    z: Tensor,
    t: Tensor,
    full: Conditions,
    negative: Tensor | None,
    weights: GuidanceWeights,
    max_batch: int | None,
) -> tuple[Tensor, int | None]:
    """The guided output for z at t, and the largest batch of one pass that memory had room for."""

    def run(size: int | None) -> Tensor:
        half = sampling_dtype(pipeline.config.sample_precision, pipeline.device)
        if half and pipeline.half_copies and pipeline._working.used:
            unet = pipeline._working.of("unet", pipeline.unet, half)
            base = pipeline._working.of("base", pipeline.base_unet, half)
            output = guided_prediction(unet, z, t, full, negative, base, weights, size)
            if pipeline._working.holds(output):
                return output
        instead = (pipeline._working.instead or pipeline.config.precision) if half else "no"
        dtype = autocast_dtype(instead, pipeline.device)
        with torch.autocast(pipeline.device.type, dtype) if dtype else nullcontext():
            x_t = z.to(pipeline.unet.dtype)
            return guided_prediction(pipeline.unet, x_t, t, full, negative, pipeline.base_unet, weights, size)

    if max_batch != 1:
        try:
            return run(max_batch), max_batch
        except torch.OutOfMemoryError:
            print("note: no memory for all branches of guidance in one pass, so they go one by one")
        # Only here, past the error, has the failed pass let go of its memory.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return run(1), 1


class Branches:
    """The networks of a pipeline with all branches of guidance, as the denoiser of `guided_sample`."""

    def __init__(self, pipeline: Any, asked: Asked, weights: GuidanceWeights, max_batch: int | None) -> None:
        self.pipeline, self.asked, self.weights, self.max_batch = pipeline, asked, weights, max_batch
        self.evaluations = 0

    def output(self, x: Tensor, i: int) -> Tensor:
        """What the networks predict for the state x [B, C, F, h, w] before step i."""
        return self._output(x, i, self.weights)

    def conditional(self, x: Tensor, sigma: float) -> Tensor:
        """The clean estimate of the conditioned branch alone, at a variance-exploding state."""
        schedule = DiffusersSchedule(self.pipeline.scheduler)
        i = int(abs(schedule.sigmas - sigma).argmin())
        state = schedule.from_ve(x, i)
        return schedule.to_x0(self._output(state, i, GuidanceWeights(0.0, 0.0, 0.0)), i, state)

    def _output(self, x: Tensor, i: int, weights: GuidanceWeights) -> Tensor:
        pipeline, count = self.pipeline, x.shape[0]
        t = pipeline.scheduler.timesteps[i].expand(count)
        output, self.max_batch = guided_pass(
            pipeline, x, t, self.asked.full, self.asked.negative, weights, self.max_batch
        )
        self.evaluations += 1
        if self.asked.source is None:
            return output
        # The branches' weights sum to 1: what is done to each may as well be done to the result.
        return residual_estimate(
            pipeline.scheduler, output, self.asked.source, x, t, pipeline.config.residual
        )


def estimated(
    pipeline: Any, z_t: Tensor, t: Tensor, asked: Asked, guided: bool,
    weights: GuidanceWeights, max_batch: int | None,
) -> Tensor:  # fmt: skip
    """`OrbitPipeline.clean_estimate`: see there."""
    z, t = z_t.to(pipeline.device).float(), t.to(pipeline.device)
    if guided:
        output, _ = guided_pass(pipeline, z, t, asked.full, asked.negative, weights, max_batch)
    else:
        output = predict(pipeline.unet, z.to(pipeline.unet.dtype), t, [asked.full], max_batch)[0].float()
    if asked.source is not None:
        spread = pipeline.config.residual
        output = residual_estimate(pipeline.scheduler, output, asked.source, z, t, spread)
    return clean_estimate(pipeline.scheduler, output, z, t)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What float32 weights sample in: on a GPU autocast to "bf16" or "fp16", else nothing."""
    if device.type != "cuda":
        return None
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
