"""Rows that others published, each with its protocol. Rows of different protocols never share a table."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Published:
    """One row of a published table; numbers are their authors'."""

    protocol: str
    method: str
    source: str
    values: dict[str, float]


class Shape(NamedTuple):
    """Extent of one measured clip or view x time matrix."""

    frames: int
    """Frames of a clip, times of a matrix."""
    size: int
    """Pixels a side."""
    views: int = 1
    """Views of a matrix."""

    def __str__(self) -> str:
        return str(self.frames) if self.views == 1 else f"{self.views} x {self.frames}"


@dataclass(frozen=True)
class Protocol:
    """When a published row may stand beside ours: same task, same test set, same views."""

    title: str
    tasks: tuple[str, ...]
    """Of settings["task"]."""
    assets: int | None
    """Size of the test set."""
    columns: dict[str, tuple[tuple[str, str], ...]]
    """Published column -> (rig, metric) of ours, at most one metric per rig."""
    ids: frozenset[str] = frozenset()
    """uids of the test set, where its authors published them."""
    shape: Shape | None = None
    rig: str = "dynamic_orbit"
    """Rig whose rows must be of that shape and of the whole test set."""
    note: str = ""

    def misfit(
        self,
        task: str,
        uids: Set[str],
        whole: Set[str],
        shapes: Iterable[Shape] = (),
        flaws: Iterable[str] = (),
    ) -> str:
        """Why what `task` measured on the assets `uids` is not comparable, '' if it is.

        whole: those with a row of `rig`. shapes: of these rows. flaws: what else keeps them from being fair.
        """
        if task not in self.tasks:
            return f"it was measured by another task ({' or '.join(self.tasks)}, not {task})"
        if self.ids and uids != self.ids:
            return f"its test set is {len(self.ids)} listed uids, of which {len(uids & self.ids)} are here"
        if self.assets is None:
            return "its authors do not say which assets they measured"
        if len(uids) != self.assets:
            return f"its test set has {self.assets} assets, this one {len(uids)}"
        if whole != uids:
            return f"its numbers are of {self.rig} rows, which {len(whole)} of {len(uids)} assets have here"
        for have in shapes:
            if self.shape is not None and have != self.shape:
                wanted = self.shape
                return f"it is of {wanted} frames at {wanted.size} pixels, this one of {have} at {have.size}"
        return next(iter(flaws), "")


def _columns(**places: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """`CLIP_O="clip36/CLIP-O dynamic_orbit/CLIP-O"` and so on."""
    return {
        name.replace("_", "-"): tuple(tuple(place.split("/")) for place in text.split())  # type: ignore[misc]
        for name, text in places.items()
    }


_ORBIT = _columns(
    CLIP_F="front_view/CLIP-F",
    CLIP_O="clip36/CLIP-O dynamic_orbit/CLIP-O",
    SSIM="dynamic_orbit/SSIM",
    PSNR="dynamic_orbit/PSNR",
    LPIPS="dynamic_orbit/LPIPS-alex",
    FVD="dynamic_orbit/FVD-Diag",
)
_MATRIX = _columns(
    LPIPS="matrix/LPIPS-alex",
    CLIP_S="matrix/CLIP-S",
    FVD_F="matrix/FVD-F",
    FVD_V="matrix/FVD-V",
    FVD_Diag="matrix/FVD-Diag",
    FV4D="matrix/FV4D",
)
_D4D_NOTE = (
    "Its 20 assets are not published: same task, views and size, other assets. "
    "LPIPS of ours is AlexNet's; theirs is not named."
)
_SV4D_NOTE = (
    "Theirs are made from one front-view video each, and so must ours be, which a scene does not say. "
    "LPIPS of ours is AlexNet's; theirs is not named."
)
#: SV4D's matrix: the input view and eight others, 21 times, at the size that it generates.
_SV4D_SHAPE = Shape(21, 576, views=9)
#: The test set of ObjaverseDy, from Stability-AI/generative-models, issue 432.
OBJAVERSE_DY = frozenset(
    {
        "edec2c2e1fd74742ad0288a93301f4a1",
        "d825a2b557e4465dbdfb43735733f904",
        "d662cbf69ace4d72a8e262a49aeafe7a",
        "d6289a90126441c6b13fcb5ed4c647ee",
        "d39a0dee0f054c21b6751f7821aa7a8e",
        "d2970c82f1e24a139599ad1c73a60523",
        "d043a031c07a49c099f4ab6c09825638",
        "c0fcad26bbb34889b39564807eca9bce",
        "b621ec8894734bc79c04338edff3cd0d",
        "ab30823b72b947bfa9e9bc6731fb95e3",
        "9cd6b8bdd29241aea779719994f4a41f",
        "8a5df6955aea41fdaa9484d7bac94a57",
        "8447d936455f44b982b3489e0df686cc",
        "4493534bb2f8403fa3b8a2ddb968bef8",
        "3d32db36ab6245f29fffb61483001f20",
        "34d16c3882f94a31bde584948883a06a",
        "30efc2fb700741bf846ea00e6e3f065f",
        "26ad402043b148ddb33e1bc52a909854",
        "0ef1295d23a94017b768b65561cea4fa",
        "02074af3625a46a3802e517f48b73e35",
    }
)


def _diffusion4d(task: str) -> Protocol:
    return Protocol(
        f"Diffusion4D table 1, 20 held-out curated assets, {task} to 4D",
        # Alone `eval run` knows that each orbit was generated, and from what: a folder of videos, or a scene,
        # may come from the ground truth itself.
        (f"run {task}",),
        20,
        _ORBIT,
        shape=Shape(24, 256),
        note=_D4D_NOTE,
    )


def _objaversedy(table: int, what: str, tasks: tuple[str, ...]) -> Protocol:
    return Protocol(
        f"SV4D table {table}, ObjaverseDy, {what}",
        tasks,
        20,
        _MATRIX,
        ids=OBJAVERSE_DY,
        shape=_SV4D_SHAPE,
        rig="matrix",
        note=_SV4D_NOTE,
    )


#: Protocols by short name. One whose test set is not known is listed, and never printed beside ours.
PROTOCOLS = {
    "diffusion4d-text": _diffusion4d("text"),
    "diffusion4d-image": _diffusion4d("image"),
    "diffusion4d-static": _diffusion4d("static"),
    "objaversedy-4d": _objaversedy(4, "4D outputs", ("scene",)),
    "objaversedy-video": _objaversedy(3, "novel-view video", ("video",)),
    "consistent4d-4d": Protocol("SV4D table 2, Consistent4D, 4D outputs", ("scene",), None, _MATRIX),
    "gvf-video": Protocol("GVFDiffusion's test set, video to 4D", ("scene",), None, _ORBIT),
}

_D4D = "arXiv 2405.16645, table 1"
_SV4D = "arXiv 2407.17470"
_FULL = ("CLIP-F", "CLIP-O", "SSIM", "PSNR", "LPIPS", "FVD")
_GVF = ("PSNR", "LPIPS", "SSIM", "CLIP", "FVD")
_FORMS = ("LPIPS", "CLIP-S", "FVD-F", "FVD-V", "FVD-Diag", "FV4D")


def _rows(protocol: str, source: str, names: tuple[str, ...], table: str) -> list[Published]:
    rows = []
    for line in table.strip().splitlines():
        method, numbers = line.split("|")
        values = {name: float(x) for name, x in zip(names, numbers.split()) if x != "-"}
        rows.append(Published(protocol, method.strip(), source, values))
    return rows


ROWS: list[Published] = [
    *_rows(
        "diffusion4d-text",
        _D4D,
        _FULL,
        """
        4D-fy | .78 .61 - - - -
        Animate124 | .75 .58 - - - -
        Diffusion4D | .81 .65 - - - -
        Diffusion4D (video) | .82 .69 - - - -
        """,
    ),
    *_rows(
        "diffusion4d-image",
        _D4D,
        _FULL,
        """
        4DGen | .84 .71 .69 14.4 .31 736.6
        STAG4D | .86 .72 .76 15.2 .27 675.4
        Diffusion4D | .89 .75 .83 16.7 .21 560.8
        Diffusion4D (video) | .90 .80 .82 16.8 .19 490.2
        """,
    ),
    *_rows(
        "diffusion4d-static",
        _D4D,
        _FULL,
        """
        Diffusion4D | .88 .77 .82 16.8 .19 544.7
        Diffusion4D (video) | .91 .81 .83 17.2 .18 482.4
        """,
    ),
    *_rows(
        "objaversedy-4d",
        f"{_SV4D}, table 4",
        _FORMS,
        """
        Consistent4D | .165 .896 880.5 488.4 741.5 872.0
        STAG4D | .158 .860 929.1 453.6 663.5 1003.2
        DreamGaussian4D | .152 .897 697.8 450.6 615.7 638.2
        SV4D | .131 .905 659.7 368.5 525.7 614.4
        """,
    ),
    *_rows(
        "objaversedy-video",
        f"{_SV4D}, table 3",
        _FORMS,
        """
        SV3D | .131 .920 729.7 375.5 526.8 690.5
        Diffusion² | .188 .869 1048.5 564.8 939.0 1320.3
        STAG4D† | .133 .917 652.4 469.1 636.8 546.6
        SV4D | .136 .920 585.1 331.9 503.0 470.5
        """,
    ),
    *_rows(
        "consistent4d-4d",
        f"{_SV4D}, table 2",
        ("LPIPS", "CLIP-S", "FVD-F"),
        """
        Consistent4D | .160 .87 1133.9
        STAG4D | .126 .91 992.2
        4Diffusion | .165 .88 -
        Efficient4D | .130 .92 -
        4DGen | .140 .89 -
        DreamGaussian4D | .160 .87 -
        GaussianFlow | .140 .91 -
        SV4D | .118 .92 732.4
        """,
    ),
    *_rows(
        "gvf-video",
        "GVFDiffusion, video to 4D on 100 objects",
        _GVF,
        """
        Consistent4D | 16.20 .146 .880 .910 935.2
        SC4D | 15.93 .164 .872 .870 833.2
        STAG4D | 16.85 .144 .887 .893 1008.4
        DreamGaussian4D | 15.24 .162 .868 .904 799.6
        L4GM | 17.03 .128 .891 .930 529.1
        GVFDiffusion | 18.47 .114 .901 .935 476.8
        """,
    ),
]


def published_rows(protocol: str) -> list[Published]:
    """Rows of one protocol; none for a protocol that nobody published."""
    return [row for row in ROWS if row.protocol == protocol]
