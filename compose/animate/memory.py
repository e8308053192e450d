"""What the priors of a run need of a card, by stage, before anything is downloaded."""

from __future__ import annotations

from orbit4d.compose.animate.priors.slots import NONE, copy_of
from orbit4d.compose.animate.request import Plan
from orbit4d.model.distill.memory import PriorMemory, prior_memory, stage_plan, with_lora
from orbit4d.model.distill.scores.published import known

#: Slots that a stage asks.
ASKED = {"static": ("2d", "3d"), "motion": ("video", "3d"), "refine": ("video", "3d", "tile")}


def memory_rows(served: Plan) -> list[str]:
    """One line a stage; priors in closed form need nothing, those of unknown layout are named."""
    settings, rows = served.settings, []
    for stage in served.stages:
        priors: list[PriorMemory] = []
        unknown: list[str] = []
        for slot in ASKED[stage]:
            spec = served.specs[slot]
            if spec == NONE or spec.startswith("analytic:"):
                continue
            if (facts := known(spec)) is None:
                unknown.append(spec)
                continue
            images = {"video": settings.frames, "tile": settings.tile_frames}.get(slot, 1)
            if slot == "video" and not served.frames_given and facts[1].frames:
                images = facts[1].frames
            priors.append(prior_memory(facts[0], images))
            if (copy := copy_of(slot, spec, settings)) is not None:
                priors[-1] = with_lora(priors[-1], images, copy.rank)
        if priors:
            rows.append(f"memory {stage_plan(stage, priors, settings.n_gaussians).row()}")
        elif not unknown:
            rows.append(f"memory {stage}: no network is asked")
        rows += [f"memory {stage}: {spec} is not known before it is loaded" for spec in unknown]
    return rows
