"""`orbit4d train --ray N`: the same loop, started on N workers of a Ray cluster by Ray Train.

Ray sets up the process group (NCCL on GPUs, gloo on CPUs) and its environment variables; accelerate finds
them and the loop notices nothing. RUN must lie where every node can write it. A worker that is lost makes
Ray start all of them again, from the last checkpoint.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from orbit4d.datasets.commands.ray_token import passing_token, token_hint
from orbit4d.datasets.core.errors import InputError, OrbitError, WorkError
from orbit4d.datasets.core.scratch import make_scratch, shorten_listeners, socket_folder
from orbit4d.model.config.settings import PATHS, TrainConfig, assign, flatten, from_dict, to_dict


def train_on_ray(
    config: TrainConfig,
    dataset: str,
    run: Path,
    workers: int,
    resume: bool = False,
    trackers: tuple[str, ...] = (),
    address: str | None = None,
    use_gpu: bool | None = None,
    max_failures: int = 2,
) -> Path:
    """Run `train` on `workers` Ray workers; returns RUN/model.

    `address` is a Ray address, "auto" for the cluster this machine belongs to, or None for a Ray of its own.
    `use_gpu` defaults to whether the cluster has GPUs; InputError when it has some, but fewer than workers.
    Errors of the loop come back as they would without Ray.
    """
    import ray

    from orbit4d.datasets.core.storage import Store
    from orbit4d.datasets.index.index import Index
    from orbit4d.model.run.claim import claimed
    from orbit4d.model.training.plan import check_batch

    if workers < 1:
        raise InputError(f"--ray {workers}: give the number of workers, at least 1")
    check_batch(config, workers)
    Index(dataset)  # a dataset that is not there is refused before the run's folder is made
    dataset = Store(dataset).uri  # as its own path: workers have other current folders
    with claimed(run, _with_whole_paths(config), resume) as config:
        pass  # what is wrong with RUN is said before Ray starts; the first worker claims it again
    with ray_running(workers, address):
        if use_gpu is None:
            use_gpu = on_gpus(workers, int(ray.cluster_resources().get("GPU", 0)))
        print(f"training on {workers} Ray workers, {'a GPU each' if use_gpu else 'on CPUs'}", flush=True)
        try:
            _fit(config, dataset, run, workers, trackers, use_gpu, max_failures)
        except Exception as error:
            known = _orbit_error(error)
            if known is None:
                raise
            raise known from error
    if not (run / "model").is_dir():
        raise WorkError(f"{run}: Ray Train ended without a model: see {run}/ray, then --resume")
    return run / "model"


@contextmanager
def ray_running(workers: int, address: str | None) -> Iterator[None]:
    """Ray at `address`, connected to and left again unless this process has a Ray already.

    WorkError when Ray does not start on this machine, InputError when no cluster answers at `address`.
    """
    import ray

    from orbit4d.datasets.core.cores import usable_cores

    if ray.is_initialized():
        yield
        return
    # Ray would put the driver's folder, and so the folder named `datasets`, on every worker's path.
    empty = make_scratch()
    settings: dict[str, Any] = {"runtime_env": {"working_dir": empty}, "log_to_driver": True}
    if address is None:
        settings |= {"num_cpus": max(workers, usable_cores()), "include_dashboard": False}
        settings |= {"_temp_dir": os.path.join(socket_folder(), "ray")}
    with passing_token() if address is None else nullcontext():
        try:
            ray.init(address=address or "local", **settings)
        except Exception as error:
            # Ray raises plain exceptions too, of a node that timed out for example.
            why = " ".join(str(error).split())[:300]
            if address is None:
                raise WorkError(f"--ray {workers}: Ray does not start on this machine ({why})") from error
            raise InputError(
                f"--address {address}: no Ray cluster answers there ({why}); {token_hint()}"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(empty, ignore_errors=True)


def _fit(
    config: TrainConfig,
    dataset: str,
    run: Path,
    workers: int,
    trackers: tuple[str, ...],
    use_gpu: bool,
    max_failures: int,
) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _loop,
        train_loop_config={
            "config": to_dict(config),
            "dataset": dataset,
            "run": str(run.resolve()),
            "trackers": list(trackers),
        },
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            storage_path=str((run / "ray").resolve()),
            name="train",
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    trainer.fit()


def on_gpus(workers: int, gpus: int) -> bool:
    """Whether the workers take a GPU each: where the cluster has any. InputError when they do not go round:
    on the CPUs of a cluster with GPUs nobody wants to train unasked."""
    if 0 < gpus < workers:
        raise InputError(
            f"--ray {workers}: the cluster has {gpus} GPUs, and every worker takes one: give --ray {gpus}, "
            "or hide the GPUs to train on CPUs (CUDA_VISIBLE_DEVICES= where Ray is started)"
        )
    return gpus > 0


def _with_whole_paths(config: TrainConfig) -> TrainConfig:
    """Settings that name files of this machine, with whole paths."""
    flat = flatten(to_dict(config))
    local = {key: flat[key] for key in PATHS if flat[key] and Path(flat[key]).exists()}
    return assign(config, [(key, str(Path(value).resolve())) for key, value in local.items()], "--ray")


def _loop(settings: dict[str, Any]) -> None:
    """What every worker runs. The run is claimed, so it is always a resumption, maybe of step 0."""
    from orbit4d.model.training.train import train

    shorten_listeners()
    train(
        from_dict(settings["config"]),
        settings["dataset"],
        Path(settings["run"]),
        resume=True,
        trackers=tuple(settings["trackers"]),
    )


def _orbit_error(error: BaseException | None) -> OrbitError | None:
    """The one-line error of ours that Ray wrapped, if there is one."""
    seen: set[int] = set()
    queue = [error]
    while queue:
        current = queue.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, OrbitError):
            kind = InputError if isinstance(current, InputError) else WorkError
            return kind(str(current).splitlines()[0])
        queue += [current.__cause__, current.__context__, getattr(current, "cause", None)]
        failures = getattr(current, "worker_failures", None)
        queue += list(failures.values()) if isinstance(failures, dict) else []
    return None
