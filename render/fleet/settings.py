"""The fleet's settings and limits. Commands take their defaults from here, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from orbit4d.datasets.core.errors import InputError

#: Longest that `import bpy` may take; 31 s were seen on a cold disk.
START_TIMEOUT = 180.0
#: Beyond the child's own limits: hooks, storage, and the child's start.
STUCK_GRACE = START_TIMEOUT + 300.0
#: The child's limit holds for each action of an asset; an actor that is silent for this many of them is
#: stuck itself.
STUCK_ACTIONS = 50


@dataclass(frozen=True)
class Limits:
    """What a job may cost before it is given up. Every command that starts Blender has these defaults.

    None is no limit. `asset_timeout` holds for each action where a task tells of them, else for the task;
    `import_timeout` for tasks that emit `imported`; `recycle_after` counts tasks.
    """

    attempts: int = 2
    """Failed attempts after which an asset is quarantined, or counts as failed."""
    max_preemptions: int = 10
    """Preempted attempts (lost workers or machines) after which an asset is quarantined."""
    asset_timeout: float = 900.0
    """Time limit per action, s."""
    import_timeout: float | None = 300.0
    """Time limit for reading an asset, s."""
    max_rss_bytes: int | None = 8 << 30
    """Memory limit per Blender process, e.g. 8G."""
    recycle_after: int = 50
    """Assets after which a Blender process is replaced."""

    @property
    def stuck_seconds(self) -> float:
        """Silence after which the worker itself, and not its child, counts as stuck."""
        return STUCK_ACTIONS * self.asset_timeout + STUCK_GRACE


@dataclass(frozen=True)
class StorageCheck:
    """What every worker must be able to do before it takes a job. Empty: nothing is checked."""

    out: str = ""
    """Path or URI in which a file is written, read back and deleted."""
    present: str = ""
    """Name of a file that must lie in `out`: a disk that is not mounted lacks it."""
    source: str = ""
    """URI of an asset of which one byte is read."""


@dataclass(frozen=True)
class FleetSettings:
    """How many workers, how patient, and where. None of this changes what is rendered."""

    workers: int | None = None
    """Workers (Ray actors). Default: as many as the cores take."""
    threads_per_worker: int | None = None
    """Threads per worker, for which Ray reserves cores. Default: cores divided by workers; 1 without it."""
    attempts: int = Limits.attempts
    """Failed attempts after which an asset is quarantined, or counts as failed."""
    max_preemptions: int = Limits.max_preemptions
    """Preempted attempts (lost workers or machines) after which an asset is quarantined."""
    asset_timeout: float = Limits.asset_timeout
    """Time limit per action, s."""
    import_timeout: float | None = Limits.import_timeout
    """Time limit for reading an asset, s."""
    max_rss_bytes: int | None = Limits.max_rss_bytes
    """Memory limit per Blender process, e.g. 8G."""
    recycle_after: int = Limits.recycle_after
    """Assets after which a Blender process is replaced."""
    address: str | None = None
    """Ray address (`auto`: the running cluster). Default: a local Ray."""
    shared_paths: bool = False
    """Local paths are the same files on every machine of the cluster."""
    gpus_per_worker: float = 0.0
    """GPUs per worker (0.25: four share one)."""
    order: Literal["largest_first", "given"] = "largest_first"
    """Order of the assets: large ones first shorten the end; `given` reads the sources lazily."""
    child_env: tuple[tuple[str, str], ...] = ()
    """Extra environment of the children."""
    storage_patience: float = 600.0
    """Seconds for which storage may fail (a full disk, lost credentials, an outage) before the run ends."""
    storage: StorageCheck = StorageCheck()
    """What every worker must be able to do; the commands fill it in."""
    watch: Callable[[Any, Any], None] | None = field(default=None, compare=False)
    """Called once with the pool of workers and the patience with storage; the commands fill it in."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads_per_worker", "attempts", "recycle_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if self.storage_patience < 0:
            raise InputError(f"storage_patience is {self.storage_patience:g}; it must be at least 0")
        if self.order not in ("largest_first", "given"):
            raise InputError(f"order is {self.order!r}; choose largest_first or given")

    @property
    def elsewhere(self) -> bool:
        """Whether workers may run on other machines than the driver's."""
        return self.address not in (None, "local")

    def refuse_local(self, paths: Iterable[str]) -> None:
        """Raise InputError that names the first local one of the paths that workers on other machines are
        to read or write.
        """
        if not self.elsewhere or self.shared_paths:
            return
        local = next((path for path in paths if "://" not in path), None)
        if local is not None:
            raise InputError(
                f"{local}: a local path means another file on each machine of the cluster; use s3:// or "
                "gs://, or mount it everywhere (file_mounts in ray_cluster.yaml, or a network disk) and "
                "add --shared-paths"
            )

    @property
    def limits(self) -> Limits:
        """The limits among these settings, as driver, worker and child take them."""
        return Limits(
            attempts=self.attempts,
            max_preemptions=self.max_preemptions,
            asset_timeout=self.asset_timeout,
            import_timeout=self.import_timeout,
            max_rss_bytes=self.max_rss_bytes,
            recycle_after=self.recycle_after,
        )
