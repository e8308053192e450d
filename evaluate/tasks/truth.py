"""Ground truth of an asset's action: clips of a rendered dataset, and clips rendered from its file on demand.

A truth is named in one of two ways. DATASET[:uid[:action]] is what `orbit4d render` wrote; with the asset
files beside it, what the dataset lacks (further orbits, 36 views, a view x time matrix) is rendered with the
dataset's own settings. SOURCE[:uid[:action]], any source that `orbit4d render` takes (a file, a folder, a
table), needs no dataset at all: everything is rendered on demand and cached (`truth_cache`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import is_dataset
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.index.splits import fallen
from orbit4d.datasets.sources.asset import Asset
from orbit4d.datasets.sources.lists import absent, read_list
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.datasets.store import manifest
from orbit4d.datasets.store.clip import RIGS, Clip
from orbit4d.datasets.store.schema import split_of
from orbit4d.evaluate.tasks.truth_cache import TruthCache, Wanted, ensure
from orbit4d.render.planning.settings import RenderSettings, preset

_KEYS = ["uid", "action_index", "action", "rig", "orbit", "split"]


@dataclass(frozen=True)
class Ref:
    """One clip of a dataset, by name: small enough to be sent to another machine."""

    dataset: str
    uid: str
    action_index: int
    rig: str
    orbit: int

    def read(self) -> Clip:
        """The clip itself."""
        return read_clip(self.dataset, self.uid, self.action_index, self.rig, self.orbit)


@dataclass(frozen=True)
class Subject:
    """One action of one asset, and the dataset that holds its base clips."""

    dataset: str
    uid: str
    action_index: int
    action: str

    @property
    def name(self) -> str:
        """uid:action, or uid alone."""
        return f"{self.uid}:{self.action}" if self.action else self.uid

    def ref(self, rig: str, orbit: int = 0) -> Ref:
        """A clip of the base dataset, whether it is there or not."""
        return Ref(self.dataset, self.uid, self.action_index, rig, orbit)


@dataclass(frozen=True)
class RenderChoice:
    """How truth is rendered where no dataset says it. None keeps what the preset says."""

    preset: str = "default"
    frames: int | None = None
    resolution: int | None = None
    samples: int | None = None
    radius: float | None = None
    fov_x_deg: float | None = None
    elevation_deg: float | None = None

    def settings(self) -> RenderSettings:
        """The whole configuration."""
        changes: dict[str, Any] = {k: v for k, v in vars(self).items() if k != "preset" and v is not None}
        return preset(self.preset, **changes)


class Truth:
    """Where the ground truth of an evaluation comes from."""

    def __init__(
        self,
        where: str,
        assets: Sequence[str] = (),
        choice: RenderChoice | None = None,
        cache: TruthCache | None = None,
        rigs: tuple[str, ...] = RIGS,
    ) -> None:
        self.where, self.rigs, self.cache = where, rigs, cache or TruthCache()
        self.is_dataset = is_dataset(where)
        # Cases are sent to processes that stand in another folder.
        self._dataset = Store(where).uri if self.is_dataset else ""
        self.sources = tuple(assets) if self.is_dataset else (where, *assets)
        self._choice = choice or RenderChoice()
        self.failures: dict[str, str] = {}
        """uid -> why an asset has no ground truth."""

    @cached_property
    def settings(self) -> RenderSettings:
        """How truth is rendered: as the dataset was, else as chosen."""
        if not self.is_dataset:
            return self._choice.settings()
        config = manifest.read(Store(self.where)).config
        try:
            settings = RenderSettings.from_config(config)
        except (KeyError, TypeError, InputError):
            raise InputError(
                f"{self.where}: was not rendered by orbit4d, so nothing can be rendered to match it; "
                "give asset files as --truth"
            ) from None
        changes = {k: getattr(self._choice, k) for k in ("frames", "resolution")}
        settings = replace(settings, **{k: v for k, v in changes.items() if v is not None})
        if self._choice.samples is not None:
            engine = replace(settings.engine, samples=self._choice.samples, target_psnr_db=None)
            settings = replace(settings, engine=engine)
        return settings

    @cached_property
    def assets(self) -> dict[str, Asset]:
        """The asset files by uid."""
        return {asset.uid: asset for asset in resolve(list(self.sources)).assets} if self.sources else {}

    # What there is ------------------------------------------------------------------------------------

    def subjects(self, split: str | None = None, ids: Sequence[str] | None = None) -> list[Subject]:
        """Every (asset, action) with a dynamic orbit, in a split (None: all) or of the listed uids.

        Of asset files the base clips are rendered first, side by side; what cannot be rendered is named in
        `failures`. Raises InputError when none is left.
        """
        wanted = None if ids is None else set(ids)
        if self.is_dataset:
            found = _listed(self._dataset, split, wanted)
        else:
            chosen = {
                uid: asset
                for uid, asset in self.assets.items()
                if (uid in wanted if wanted is not None else split in (None, split_of(uid)))
            }
            found = self._rendered_subjects(chosen)
        if wanted is not None:
            for uid in absent(ids or (), {subject.uid for subject in found}):
                self.failures.setdefault(uid, f"{self.where} has no such asset with a dynamic orbit")
        if not found:
            which = (
                "the listed uids" if ids is not None else f"the split {split!r}" if split else "its assets"
            )
            why = f" ({next(iter(self.failures.values()))})" if self.failures else ""
            if self.is_dataset and (have := fallen(Index(self._dataset))):
                why += f"; it has {have}"
            raise InputError(f"{self.where}: nothing to evaluate in {which}{why}; choose others")
        return found

    def subject(self, uid: str, action: str | int = "") -> Subject:
        """One action of one asset; action '' is the only one there is. Raises InputError."""
        if self.is_dataset:
            clip = read_clip(self.where, uid, action)
            return Subject(self._dataset, uid, clip.action_index, clip.action)
        if uid not in self.assets:
            raise InputError(f"{self.where}: no asset {uid!r}; it has {', '.join(sorted(self.assets)[:20])}")
        found = self._rendered_subjects({uid: self.assets[uid]})
        if not found:
            raise InputError(f"{self.where}: {uid}: {self.failures.get(uid, 'no action of it moves')}")
        named = [s for s in found if action in (s.action, s.action_index)]
        if not named and action == "" and len(found) == 1:
            named = found
        if not named:
            names = ", ".join(repr(s.action) for s in found)
            raise InputError(f"{self.where}: asset {uid} has no action {action!r} that moves; it has {names}")
        return named[0]

    def only(self) -> Subject:
        """The one action of the one asset that there is. Raises InputError when there are more."""
        uids = {s.uid for s in _listed(self._dataset, None, None)} if self.is_dataset else set(self.assets)
        if len(uids) != 1:
            names = ", ".join(sorted(uids)[:20])
            raise InputError(f"{self.where}: holds {len(uids)} assets; add :uid[:action], of {names}")
        return self.subject(uids.pop())

    def _rendered_subjects(self, assets: dict[str, Asset]) -> list[Subject]:
        base = replace(
            self.settings,
            rigs=self.rigs,
            orbits=1,
            azimuths_deg=self.settings.azimuths_deg[:1],
            window_shares=self.settings.window_shares[:1],
        )
        wanted = {uid: Wanted(asset, base) for uid, asset in assets.items()}
        refused = self.cache.fill(list(wanted.values()))
        found = []
        for uid, one in wanted.items():
            if one.name in refused:
                self.failures[uid] = refused[one.name]
            else:
                found += _listed(str(self.cache.place(one)), None, {uid})
        return found

    # Clips --------------------------------------------------------------------------------------------

    def held(self, subject: Subject, rig: str, orbit: int = 0) -> Ref | None:
        """A clip of the base dataset, None where it has none."""
        rows = Index(subject.dataset).rows_of(subject.uid, ["action_index", "rig", "orbit"])
        asked = {"action_index": subject.action_index, "rig": rig, "orbit": orbit}
        return subject.ref(rig, orbit) if asked in rows else None

    def clips(self, subjects: Sequence[Subject], rig: str, orbit: int = 0) -> list[Ref | None]:
        """The clip of each subject: held, else rendered from its file, else None."""
        refs = [self.held(subject, rig, orbit) for subject in subjects]
        lacking = [s for s, ref in zip(subjects, refs) if ref is None]
        made = dict(zip(lacking, self._render(lacking, rig, orbit)))
        return [made.get(s) if ref is None else ref for s, ref in zip(subjects, refs)]

    def turns(self, subjects: Sequence[Subject], views: int) -> list[Ref | None]:
        """Dynamic orbits of another number of views, from the front; None where there is no asset file."""
        return self._render(subjects, "dynamic_orbit", 0, frames=views)

    def matrices(self, subjects: Sequence[Subject], views: int, frames: int) -> list[list[Ref] | None]:
        """View x time matrices: `views` front-view clips of `frames` times, at uniform azimuths from the
        front; None where there is no asset file.
        """
        azimuths = tuple(360.0 * i / views for i in range(views))

        def settings(subject: Subject) -> RenderSettings:
            return replace(
                self.settings,
                frames=frames,
                rigs=("front_view",),
                orbits=views,
                azimuths_deg=azimuths,
                window_shares=(self.settings.window_share_of(0),) * views,
            )

        folders = self._folders(subjects, settings)
        return [
            None
            if folder is None
            else [Ref(folder, s.uid, s.action_index, "front_view", k) for k in range(views)]
            for s, folder in zip(subjects, folders)
        ]

    def _render(
        self, subjects: Sequence[Subject], rig: str, orbit: int, frames: int | None = None
    ) -> list[Ref | None]:
        def settings(subject: Subject) -> RenderSettings:
            return replace(
                self.settings,
                frames=frames or self.settings.frames,
                rigs=(rig,),
                orbits=1,
                azimuths_deg=(self.settings.azimuth0_of(subject.uid, orbit),),
                window_shares=(self.settings.window_share_of(orbit),),
            )

        folders = self._folders(subjects, settings)
        return [
            None if folder is None else Ref(folder, s.uid, s.action_index, rig, 0)
            for s, folder in zip(subjects, folders)
        ]

    def _folders(
        self, subjects: Sequence[Subject], settings: Callable[[Subject], RenderSettings]
    ) -> list[str | None]:
        """Cached datasets with what `settings(subject)` says of each subject."""
        wanted: dict[Subject, Wanted] = {}
        for subject in subjects:
            asset = self.assets.get(subject.uid)
            if asset is None:
                continue
            self._check_contents(subject, asset)
            wanted[subject] = Wanted(replace(asset, actions=(subject.action_index,)), settings(subject))
        refused = self.cache.fill(list(wanted.values())) if wanted else {}
        for one in wanted.values():
            ensure(refused, one)
        return [str(self.cache.place(wanted[s])) if s in wanted else None for s in subjects]

    def _check_contents(self, subject: Subject, asset: Asset) -> None:
        held = Index(subject.dataset).rows_of(subject.uid, ["asset_sha256"])
        if held and held[0]["asset_sha256"] not in (asset.sha256, ""):
            raise InputError(
                f"{asset.path}: not the file that {subject.dataset} rendered as {subject.uid} "
                "(its sha256 differs); give the one it was rendered from"
            )


def read_ids(path: Path) -> list[str]:
    """uids of a text file, one a line; `#` begins a comment."""
    return list(dict.fromkeys(read_list(str(path), "a text file with one uid a line")))


def _listed(dataset: str, split: str | None, uids: set[str] | None) -> list[Subject]:
    found = []
    for _, table in Index(dataset).read(_KEYS):
        for row in table.to_pylist():
            kept = row["uid"] in uids if uids is not None else split in (None, row["split"])
            if kept and row["rig"] == "dynamic_orbit" and row["orbit"] == 0:
                found.append(Subject(dataset, row["uid"], row["action_index"], row["action"]))
    # A clip under several lights is one subject, seen under the first.
    return sorted(dict.fromkeys(found), key=lambda s: (s.uid, s.action_index))
