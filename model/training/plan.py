"""`optim.batch=auto`: how a step is cut for the device that it runs on.

The choice is between more clips in a micro-batch and less to recompute. Both are weighed by what was measured
on an H100 (docs/measured/gpu.md): a pass over b clips keeps the device as busy as b / (b + 2) where each
kernel is launched, b / (b + 0.45) where the step is recorded; and recomputing makes a step longer by the part
of the forward pass that is run again. What fits is the estimate of memory.py, with a twentieth to spare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.compute.half import half_dtype
from orbit4d.model.compute.micro_step import cannot_be_recorded
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.encoders.frozen import latent_shape
from orbit4d.model.training.memory import CARDS_GIB, GIB, MemoryEstimate, estimate_of, measured
from orbit4d.model.training.stages import micro_batches

#: Ways to keep activations, and how much longer a step is than with all of them kept: a backward pass costs
#: two forward ones, of which attention is about half.
RECOMPUTING = {"nothing": 1.0, "attention": 1.17, "blocks": 1.33}
#: Clips at which half of a device is busy: launched, batch 12 with blocks recomputed was 1.30 times as fast
#: as batch 2 without; of a step of one clip, 372 ms, kernels took 182.
_LAUNCHED, _RECORDED = 2.0, 0.45
#: Part of a device that a plan may take: the estimate is good to a twentieth.
_ROOM = 0.95
_CUDA = torch.device("cuda")
#: No more clips than this at once: larger ones gain nothing that could be measured.
_MOST = 16


@dataclass(frozen=True)
class Plan:
    """One way to cut a step."""

    batch: int
    recompute: str
    """Key of RECOMPUTING."""
    memory: MemoryEstimate
    recorded: bool = False
    """Whether its steps can be CUDA graphs."""

    @property
    def speed(self) -> float:
        """Expected clips per second, in units of a device that is busy with nothing recomputed."""
        idle = _RECORDED if self.recorded else _LAUNCHED
        return self.batch / (self.batch + idle) / RECOMPUTING[self.recompute]

    def applied(self, config: TrainConfig) -> TrainConfig:
        """The settings with this plan in them."""
        optim = replace(config.optim, batch=self.batch, checkpointing=self.recompute != "nothing")
        if self.recompute != "nothing":
            optim = replace(optim, recompute=self.recompute)
        return replace(config, optim=optim)


def settled(config: TrainConfig, accelerator: Accelerator) -> TrainConfig:
    """The settings with a number for `optim.batch`, printed by the main process; the same in all.

    On a CPU a batch gains little and memory is the whole machine's: up to four clips, and recomputing as it
    is set. WorkError where nothing fits the card.
    """
    if config.optim.batch != "auto":
        return config
    processes = accelerator.num_processes
    if accelerator.device.type != "cuda":
        batch = max(b for b in divisors(config, processes) if b <= 4)
        text = f"optim.batch=auto: micro-batch {batch}"
        chosen = replace(config, optim=replace(config.optim, batch=batch))
    else:
        room = torch.cuda.mem_get_info(accelerator.device)[1]
        best = best_plan(config, room, processes)
        kept = "nothing recomputed" if best.recompute == "nothing" else f"{best.recompute} recomputed"
        text = (
            f"optim.batch=auto: micro-batch {best.batch}, {kept}, "
            f"{best.memory.total / GIB:.1f} of {room / GIB:.1f} GiB by the estimate"
        )
        chosen = best.applied(config)
    if accelerator.is_main_process:
        print(text, flush=True)
    # The first process's device speaks for all: they take equal shares of a step.
    of_all: TrainConfig = broadcast_object_list([chosen])[0]
    return of_all


def check_batch(config: TrainConfig, processes: int) -> None:
    """InputError where the effective batch cannot be cut as the settings say."""
    if config.optim.batch == "auto":
        divisors(config, processes)
    else:
        micro_batches(config, processes)


def divisors(config: TrainConfig, processes: int) -> list[int]:
    """Micro-batches that make up the effective batch on so many processes. InputError where none does."""
    share, rest = divmod(config.optim.effective_batch, processes)
    if rest or not share:
        raise InputError(
            f"optim.effective_batch={config.optim.effective_batch} is no multiple of {processes} processes: "
            "set it to one"
        )
    return [b for b in range(1, min(share, _MOST) + 1) if share % b == 0]


def best_plan(config: TrainConfig, room: int, processes: int = 1) -> Plan:
    """The plan of most clips per second among those that fit `room` bytes; WorkError where none does."""
    return _best(list(plans(config, processes)), room)


def _best(found: list[Plan], room: int) -> Plan:
    fitting = [plan for plan in found if plan.memory.total <= _ROOM * room]
    if not fitting:
        least = min(found, key=lambda plan: plan.memory.total)
        raise WorkError(
            f"optim.batch=auto: one clip takes {least.memory.total / GIB:.1f} GiB at least, the device has "
            f"{room / GIB:.1f}: --set optim.optimizer=adamw8bit, optim.lora=16, or data.resolution or "
            "data.frames lower (optim.batch=1 tries it all the same)"
        )
    return max(fitting, key=lambda plan: (plan.speed, -plan.memory.total))


def plans(config: TrainConfig, processes: int = 1) -> Iterator[Plan]:
    """Every way to cut a step, with what it takes."""
    weights, saved = measured(config, *latent_shape(config.model.autoencoder, config.model.base == "wan"))
    for batch in divisors(config, processes):
        for recompute in RECOMPUTING:
            plan = Plan(batch, recompute, MemoryEstimate(0, 0, 0, 0, 0, 0, 0, 0))
            cut = plan.applied(config)
            why = cannot_be_recorded(cut, processes, half_dtype(cut.optim, _CUDA) is not None)
            memory = estimate_of(cut, weights, saved, batch, processes)
            yield replace(plan, memory=memory, recorded=cut.optim.graphs != "off" and not why)


def choices(config: TrainConfig, processes: int = 1) -> str:
    """For `--dry-run`: what `optim.batch=auto` comes to on cards of several sizes, one line each."""
    lines, found = [], list(plans(config, processes))
    for card in CARDS_GIB:
        try:
            best = _best(found, card * GIB)
            text = f"micro-batch {best.batch}, {best.recompute} recomputed, {best.memory.total / GIB:.1f} GiB"
        except WorkError as error:
            text = str(error).partition(": ")[2].partition(":")[0]
        lines.append(f"optim.batch=auto on {card} GiB: {text}")
    return "\n".join(lines)
