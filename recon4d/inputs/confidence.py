"""How far each pixel of a novel view is known, as `orbit4d novel-view` writes it beside its video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.folders import image_files
from orbit4d.recon4d.inputs.footage import Footage

Float = npt.NDArray[np.float32]

#: Confidence of what no input of a novel view shows, before the factor for the distance.
HIDDEN = 0.3


def read_confidence(footage: Footage, hidden: float, notes: list[str]) -> Float | None:
    """Confidence [F, H, W] in [0, 1] of footage; None unless it is a novel view.

    `hidden` replaces the confidence that the view was written with for pixels that its warp did not see.
    InputError, one line, where the folders `confidence` and `seen` are not whole or not of the frames' size.
    """
    record = footage.record
    if record is None or "novel_view" not in record.extra:
        return None
    about = record.extra["novel_view"]
    written = float(about.get("confidence_hidden", HIDDEN)) if isinstance(about, dict) else HIDDEN
    folder = record.path.parent
    sure = _planes(folder / "confidence", footage)
    if hidden != written:
        unseen = 1 - _planes(folder / "seen", footage)
        # A pixel of a reduced frame may be seen in part.
        factor = hidden / written if written else 0.0
        sure = np.minimum(sure * (1 + unseen * (factor - 1)), 1).astype(np.float32)
    if (sure == 1).all():
        return None
    notes.append(f"a novel view: its pixels count by {folder.name}/confidence, {sure.mean():.2f} in the mean")
    return sure


def _planes(folder: Path, footage: Footage) -> Float:
    """Grey images of a folder as [F, H, W] in [0, 1], averaged to the size of the footage."""
    files = image_files(folder) if folder.is_dir() else []
    if len(files) != footage.total:
        raise InputError(
            f"{folder}: {len(files)} images for {footage.total} frames of a novel view; keep the folder that "
            "`orbit4d novel-view` wrote, or give --cameras"
        )
    h, w = footage.pixels.shape[1:3]
    planes = np.empty((len(footage.index), h, w), np.float32)
    for i, place in enumerate(footage.index):
        try:
            image = Image.open(files[place]).convert("L")
        except OSError as error:
            raise InputError(f"{files[place]}: cannot be read ({error}); make the novel view again") from None
        if image.size not in (footage.size, footage.stored_size):
            raise InputError(
                f"{files[place]}: is {image.size[0]}x{image.size[1]}, its frame is {footage.size[0]}x"
                f"{footage.size[1]}; make the novel view again"
            )
        planes[i] = np.asarray(image.resize((w, h), Image.Resampling.BOX), np.float32) / 255
    return planes
