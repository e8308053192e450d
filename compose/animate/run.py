"""`orbit4d animate`: stages in order, each resumed where it stopped, and a scene at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from orbit4d.compose.animate import measures
from orbit4d.compose.animate.folder import (
    CHECKPOINT,
    copied,
    open_folder,
    save_stage,
    scene_of,
    write_record,
)
from orbit4d.compose.animate.guidance import write_guidance
from orbit4d.compose.animate.memory import memory_rows
from orbit4d.compose.animate.priors.slots import (
    NONE,
    check_device,
    copy_of,
    describe,
    licence_notes,
    load_slots,
    open_truths,
    record_of,
)
from orbit4d.compose.animate.priors.truth import Truth, still_field
from orbit4d.compose.animate.request import Plan, Request, plan
from orbit4d.compose.animate.sampling import View
from orbit4d.compose.animate.settings import DROPPED, SLOTS, STAGES
from orbit4d.compose.animate.stages.asking import Slot
from orbit4d.compose.animate.stages.state import (
    State,
    Still,
    begin,
    digest,
    load_checkpoint,
    save_checkpoint,
    trains_canonical,
)
from orbit4d.compose.animate.stages.steps import Step, Told, take_step
from orbit4d.compose.animate.start.reference import (
    Reference,
    misfit,
    read_reference,
    reference_of_scene,
    reference_of_truth,
    save_reference,
)
from orbit4d.compose.animate.start.still import ball, still_scene
from orbit4d.compose.animate.via_generate import generated
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.model.distill.lora import LoraCopy
from orbit4d.model.distill.scenes.views import spherical
from orbit4d.recon4d.deformation.keyframes import KeyframeField
from orbit4d.recon4d.devices import choose_device, describe_device
from orbit4d.recon4d.raster.threads import alone
from orbit4d.recon4d.scene import Scene, load_scene

LOG_EVERY = 50
#: Opacity from which a Gaussian may become a control node: haze must not.
SOLID_NODE = 0.3

Say = Callable[[str], None]


def animate(request: Request, say: Say = print) -> Scene | None:
    """Run what a request asks for; the finished scene, None for a dry run.

    Raises:
        InputError: what cannot be served, one line; nothing is written then.
        WorkError: where the work failed; a checkpoint is left.
    """
    served = plan(request)
    truths = open_truths(served.specs)
    for note in served.notes:
        say(note)
    if request.dry_run:
        _print_slots(served, {}, say)
        for row in memory_rows(served):
            say(row)
        return None
    held = open_folder(served)
    device = choose_device(request.device)
    for note in (
        *check_device(served.specs, device.type, request.device),
        *licence_notes(served.specs),
    ):
        say(note)
    slots, served = _ready(served, truths, device)
    _print_slots(served, slots, say)
    for slot in slots.values():
        if request.offload != "none" and (slot.is_orbit or slot.copy is not None):
            why = "has no such mode" if slot.is_orbit else "trains a copy of itself"
            say(f"--offload {request.offload}: {slot.spec} {why} and stays on the device")
    if request.preset == "published":
        say(DROPPED)
    if _is_finished(served, held):
        say(f"{request.out}: already finished")
        return load_scene(request.out)
    with alone(request.threads) as used:
        say(describe_device(device, used))
        return _Run(served, slots, truths, device, say, held).all()


def _ready(served: Plan, truths: dict[str, Truth], device: torch.device) -> tuple[dict[str, Slot], Plan]:
    """Priors loaded, and the clip's length taken from the video prior where nobody says it."""
    settings = served.settings
    lens = View(settings.elevation, 0.0, settings.rig.radius).camera(settings.resolution, settings.rig.fov)
    two_pass = served.request.two_pass != "off"
    token = served.request.token or None
    slots = load_slots(
        served.specs, settings, truths, lens, token, str(device), two_pass, served.request.seed
    )
    longest = slots["video"].model.frames if "video" in slots else None
    if longest is not None and not served.frames_given:
        served = replace(served, settings=replace(settings, frames=int(longest)))
    elif longest is not None and settings.frames > longest:
        raise InputError(
            f"--frames {settings.frames}: {served.specs['video']} makes clips of at most {longest} frames"
        )
    for slot in slots.values():
        factor = slot.model.latent[1]
        if settings.resolution % factor:
            raise InputError(
                f"--resolution {settings.resolution}: no multiple of {factor}, the factor of the autoencoder "
                f"of {slot.spec}"
            )
        # Nothing is trained in a network that leaves the device between passes.
        stays = slot.copy is not None or not hasattr(slot.model, "set_offload")
        if served.request.offload != "none" and not stays:
            slot.model.set_offload(served.request.offload)
    return slots, served


def _print_slots(served: Plan, slots: dict[str, Slot], say: Say) -> None:
    for name in SLOTS:
        model = slots[name].model if name in slots else None
        spec, settings = served.specs[name], served.settings
        say(describe(name, spec, model, settings.distilling[name], copy_of(name, spec, settings)))


def _is_finished(served: Plan, held: dict[str, Any]) -> bool:
    done = held.get("done", [])
    if served.request.via == "generate" and "motion" not in done:
        return False
    return bool(done) and set(served.stages) <= set(done) and (served.request.out / "scene.json").exists()


class _Run:
    """One process's part of a run."""

    def __init__(
        self, served: Plan, slots: dict[str, Slot], truths: dict[str, Truth], device: torch.device,
        say: Say, held: dict[str, Any],
    ) -> None:  # fmt: skip
        self.plan, self.slots, self.device, self.say, self.held = served, slots, device, say, held
        self.truth = next(iter(truths.values()), None)
        self.out: Path = served.request.out
        settings = served.settings
        self.view = View(settings.elevation, 0.0, settings.rig.radius)
        self.still: Scene | None = None
        self.told = Told(settings, slots, None, self.view, served.prompts, device)
        self.reference: Reference | None = None
        for slot in slots.values():
            if slot.is_orbit:
                self.told.orbit = _orbit_of(slot.model.pipeline.orbit(0.0, settings.elevation))
                self.told.background = torch.tensor(slot.model.pipeline.background) / 255

    def all(self) -> Scene:
        """Every stage that is left, then the scene."""
        state = self._resumed()
        if self.plan.request.static and (state is None or not self.plan.request.image):
            self.still, notes = still_scene(self.plan.request.static, self.plan.request.seed)
            for note in notes:
                self.say(note)
        if self.plan.request.via == "generate":
            self._find_reference()
            self.held = write_record(self.plan, self.held, done=self.held.get("done", []))
            if state is None:
                state = generated(self.plan, self.device)
                self._end_generated(state)
        else:
            self._check_order(state)
            self._find_reference()
        self.held = write_record(self.plan, self.held, done=self.held.get("done", []))
        if self.reference is not None:
            save_reference(self.reference, self.out / "reference.png")
        for stage in self.plan.stages:
            if state is not None and STAGES.index(stage) < STAGES.index(state.stage):
                continue
            if state is None or state.stage != stage:
                state = self._entered(stage, state)
            self._run_stage(state)
        assert state is not None
        return self._finish(state)

    def _end_generated(self, state: State) -> None:
        """Measures and files of a motion that was generated, as of one that was distilled."""
        scene = scene_of(self.plan, state)
        if self.reference is not None:
            state.records["motion"]["reference"] = measures.reference_scores(
                scene, self.reference.rgba, self.view, self.plan.settings.rig.fov
            )
        if self.truth is not None:
            state.records["motion"]["truth"] = measures.motion_scores(scene, self.truth)
        save_stage(self.out, state)

    def _resumed(self) -> State | None:
        path = self.out / CHECKPOINT
        if not path.exists():
            return None
        state = load_checkpoint(path, self.plan.settings, self.device)
        if (copy := self._copy()) is not None and state.copy is not None:
            try:
                copy.restore(state.copy)
            except (ValueError, KeyError) as error:
                raise WorkError(f"{path}: damaged checkpoint ({error}); delete it to start again") from None
        self.say(f"resumed at {state.stage} step {state.step}")
        return state

    def _check_order(self, state: State | None) -> None:
        """A stage needs the one before it, from this folder, from `--static`, or in this run."""
        first = self.plan.stages[0]
        if state is None and first != "static" and not (first == "motion" and self.still is not None):
            before = STAGES[STAGES.index(first) - 1]
            raise InputError(
                f"--stages {','.join(self.plan.stages)}: {first} continues from {before}, which {self.out} "
                "does not hold; run the stages from the first, or give --static"
            )
        if state is not None and STAGES.index(first) > STAGES.index(state.stage) + 1:
            raise InputError(f"--stages {first}: {self.out} holds a run that ended with {state.stage}")

    def _find_reference(self) -> None:
        settings, request = self.plan.settings, self.plan.request
        size, fov = settings.resolution, settings.rig.fov
        if request.image:
            self.reference = read_reference(request.image, size, request.matte)
            if self.still is not None and (warning := misfit(self.reference, self.still, self.view, fov)):
                self.say(warning)
        elif self.still is not None:
            self.reference = reference_of_scene(self.still, self.view, size, fov)
        elif self.truth is not None:
            self.reference = reference_of_truth(self.truth, self.view, size, fov)
        if self.reference is not None:
            self.told.reference = self.reference.rgba.to(self.device)
            self.say(f"reference: {'; '.join(self.reference.notes)}")

    def _entered(self, stage: str, before: State | None) -> State:
        """A stage at its first step, from the end of the one before."""
        settings, seed = self.plan.settings, self.plan.request.seed
        records = {} if before is None else before.records
        calls = {} if before is None else before.calls
        if stage == "static":
            state = begin(stage, ball(settings, seed).to(self.device), still_field(), settings, seed)
        elif stage == "motion":
            start = before if before is not None else self.still
            assert start is not None
            canonical = start.gaussians.detached().to(self.device)
            options = (settings.n_keys, settings.over, settings.heads, settings.n_nodes)
            moving = KeyframeField(*options).to(self.device)
            solid = canonical.opacities > SOLID_NODE
            if settings.over == "nodes" and int(solid.sum()) >= 4:
                moving.bind(canonical.means[solid])
            moving.bind(canonical.means)
            state = begin(stage, canonical, moving, settings, seed)
        else:
            assert before is not None
            kept = Still(before.gaussians.detached(), copied(before.field).to(self.device))
            kept.field.bind(kept.gaussians.means)
            state = begin(stage, before.gaussians, before.field, settings, seed, kept)
            state.field.bind(state.gaussians.means.detach())
        state.records, state.calls = records, calls
        if stage == "motion" and not trains_canonical(stage, settings):
            records["canonical_before"] = {"sha256": digest(state.gaussians)}
        if state.frozen is not None:
            records["frozen_before"] = {"sha256": digest(state.frozen.gaussians, state.frozen.field)}
        return state

    def _run_stage(self, state: State) -> None:
        """The steps that are left of a stage, its measures, its files."""
        settings = self.plan.settings
        steps = settings.steps[STAGES.index(state.stage)]
        if state.step >= steps and state.stage in state.records:
            return
        checkpoint = self.out / CHECKPOINT
        began, spent = time.monotonic(), state.seconds
        saved = began
        with Progress(state.stage, steps, "step") as progress:
            progress.update(state.step)
            while state.step < steps:
                step = take_step(state, self.told, steps)
                state.seconds = spent + time.monotonic() - began
                progress.update(1)
                self._note(state, step, steps)
                if time.monotonic() - saved >= settings.checkpoint_seconds:
                    self._save(state, checkpoint)
                    saved = time.monotonic()
        self._end_stage(state, steps)
        self._save(state, checkpoint)

    def _save(self, state: State, path: Path) -> None:
        """A checkpoint that knows how often priors were asked so far."""
        earlier = dict(state.calls)
        state.calls = self._calls(state)
        copy = self._copy()
        state.copy = None if copy is None else copy.record()
        save_checkpoint(state, path)
        state.calls = earlier

    def _copy(self) -> LoraCopy | None:
        return self.slots["video"].copy if "video" in self.slots else None

    def _calls(self, state: State) -> dict[str, int]:
        return {n: state.calls.get(n, 0) + slot.model.calls for n, slot in self.slots.items()}

    def _note(self, state: State, step: Step, steps: int) -> None:
        every = self.plan.settings.guidance_every
        if every and state.step % every == 0:
            for name, (answer, images) in step.answers.items():
                with state.clock.on("guidance"):
                    write_guidance(
                        self.out / "guidance", state.stage, state.step, self.slots[name], answer, images
                    )
        if state.step % LOG_EVERY and state.step != steps:
            return
        row: dict[str, Any] = {"stage": state.stage, "step": state.step, "kind": step.kind}
        row |= {"seconds": round(state.seconds, 2), **step.numbers}
        for name, (answer, _) in step.answers.items():
            row[name] = {"t": answer.t.tolist(), "g_rms": float(answer.g.square().mean().sqrt())}
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")

    def _end_stage(self, state: State, steps: int) -> None:
        settings, records = self.plan.settings, state.records
        record: dict[str, Any] = {
            "steps": steps,
            "seconds": round(state.seconds, 2),
            "share_outside_priors_and_rasteriser": round(state.clock.share_outside(), 4),
            "seconds_by_part": {name: round(value, 2) for name, value in state.clock.spent.items()},
        }
        for name, now in (
            ("canonical_before", lambda: digest(state.gaussians)),
            ("frozen_before", lambda: digest(state.frozen.gaussians, state.frozen.field)),  # type: ignore[union-attr]
        ):
            if (before := records.pop(name, None)) is not None:
                if before["sha256"] != now():
                    raise WorkError(f"animate: what {state.stage} keeps frozen has changed; this is a bug")
                record[name.replace("before", "sha256")] = before["sha256"]
        scene = scene_of(self.plan, state)
        if self.reference is not None:
            record["reference"] = measures.reference_scores(
                scene, self.reference.rgba, self.view, settings.rig.fov
            )
        if self.truth is not None:
            record["truth"] = (
                measures.static_scores(scene, self.truth, self.view)
                if state.stage == "static"
                else measures.motion_scores(scene, self.truth)
            )
        records[state.stage] = record
        save_stage(self.out, state)

    def _finish(self, state: State) -> Scene:
        """The scene folder, which every other command reads."""
        scene, request = scene_of(self.plan, state), self.plan.request
        priors = {n: record_of(slot, state.calls.get(n, 0)) for n, slot in self.slots.items()}
        priors |= {name: {"spec": NONE} for name in SLOTS if name not in priors}
        if request.via == "generate":
            priors["generate"] = {"spec": f"run:{request.run}", "kind": "trained-here", "source": request.run}
        scene.metrics = {
            "stages": state.records,
            "priors": priors,
            "replaced": [],
            "n_gaussians": len(scene.gaussians),
            "seconds": round(sum(r.get("seconds", 0.0) for r in state.records.values()), 2),
        }
        scene.info |= {
            "made_by": "animate",
            "source": request.image or request.static or next(iter(self.plan.specs.values())),
            "device": describe_device(self.device).removeprefix("device "),
        }
        done = [stage for stage in STAGES if stage in state.records]
        self.held = write_record(self.plan, self.held, priors=priors, done=done)
        scene.save(self.out)
        write_json(self.out / "metrics.json", scene.metrics)
        for stage in done:
            self.say(_line(stage, state.records[stage]))
        self.say("priors: " + ", ".join(f"{n} {p.get('kind', NONE)}" for n, p in priors.items()))
        return scene


def _orbit_of(cameras: Sequence[Camera]) -> tuple[View, ...]:
    """A run's cameras as views."""
    return tuple(View(*spherical(camera)) for camera in cameras)


def _line(stage: str, record: dict[str, Any]) -> str:
    done = "generated and fitted" if record.get("via") == "generate" else f"{record['steps']} steps"
    parts = [f"{stage}: {done}, {record['seconds']:.0f} s"]
    if "reference" in record:
        parts.append(f"reference {record['reference']['psnr']:.1f} dB")
    truth = record.get("truth", {})
    if "held_out" in truth:
        parts.append(f"held out {truth['held_out']:.1f} dB")
    if "psnr" in truth:
        parts.append(f"held out {truth['psnr']:.1f} dB")
    if "motion_error" in truth:
        parts.append(f"motion error {truth['motion_error']['e']:.3f}")
    return ", ".join(parts)
