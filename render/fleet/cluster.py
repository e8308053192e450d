"""Ray, started or found, and how its cores are shared among workers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from orbit4d.datasets.commands.ray_token import passing_token, token_hint
from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.scratch import scratch_folder, socket_folder, sweep_scratch
from orbit4d.render.fleet.settings import FleetSettings


def worker_count(settings: FleetSettings, ray: Any) -> tuple[int, int]:
    """(workers, threads per worker) such that workers use no more cores than there are, unless asked to."""
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    largest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=1)
    return share_cores(settings.workers, settings.threads_per_worker, cores, max(1, largest))


def share_cores(
    workers: int | None, threads: int | None, cores: int, largest: int | None = None
) -> tuple[int, int]:
    """Fill in what was not asked for. What was asked for is kept.

    One thread each by default: two children of one thread render more than one child of two. A worker lives
    on one machine, so that it gets no more threads than the `largest` has cores.
    """
    if threads is None:
        threads = 1 if workers is None else max(1, min(cores // workers, largest or cores))
    return (max(1, cores // threads) if workers is None else workers), threads


@contextmanager
def ray_cluster(settings: FleetSettings) -> Iterator[Any]:
    """Ray, connected to `settings.address`; what was started here is stopped again."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {
        "namespace": f"orbit4d-{uuid.uuid4().hex[:12]}",
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if settings.address is None:
        cores = usable_cores()
        workers, threads = share_cores(settings.workers, settings.threads_per_worker, cores)
        # Pixels go through files: the object store carries only short replies.
        options |= {
            "address": "local",
            "num_cpus": max(cores, workers * threads),
            "include_dashboard": False,
            "object_store_memory": 100 << 20,
            # Ray's sockets lie in it, and their paths may not be long.
            "_temp_dir": os.path.join(socket_folder(), "ray"),
        }
    else:
        options["address"] = settings.address
    with scratch_folder() as empty, passing_token() if settings.address is None else nullcontext():
        if "working_dir" not in os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", ""):
            # Without a working_dir Ray puts the driver's folder on every worker's sys.path; from the
            # repository root our `datasets` folder would then hide the package of that name.
            options["runtime_env"] = {"working_dir": empty}
        try:
            ray.init(**options)
        except Exception as error:
            # Ray raises plain exceptions (a node that timed out, a full disk, ports that are taken).
            where = settings.address or "this machine"
            fix = (
                f"check --address and the network; {token_hint()}"
                if settings.elsewhere
                else "free memory and disk, and try again"
            )
            raise WorkError(f"cannot reach or start Ray on {where}: {first_line(error)}; {fix}") from error
        try:
            yield ray
        finally:
            ray.shutdown()
            sweep_scratch()  # of the actors, which are killed and not asked to end


def first_line(error: BaseException) -> str:
    """The first line of a message; Ray's run over pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
