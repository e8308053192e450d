"""RGBA over a colour: the formulas, for arrays and tensors alike.

Kernels that repeat them for speed are twins that tests compare with these: `images/composite.py` (loader) and
`recon4d/fitting/fused_loss.py` (loss).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Colour8 = tuple[int, int, int]

#: Names of colours, in 0 to 255.
NAMED: dict[str, Colour8] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "gray": (128, 128, 128),
    "grey128": (128, 128, 128),
}


def over(rgb: Any, alpha: Any, colour: Any) -> Any:
    """Straight `rgb` over `colour`: rgb · alpha + colour · (1 - alpha).

    Arrays (numpy) or tensors (torch) of floats whose shapes broadcast: rgb [..., 3] with alpha [..., 1], or
    rgb [..., 3, H, W] with alpha [..., 1, H, W] and colour [3, 1, 1]. All in [0, 1], sRGB values. The
    result has the dtype that the operators give. Porter and Duff 1984, "over" with an opaque backdrop.
    """
    return rgb * alpha + colour * (1 - alpha)


def over_premultiplied(rgb: Any, alpha: Any, colour: Any) -> Any:
    """`over` for colours that are multiplied by alpha already: rgb + (1 - alpha) · colour."""
    return rgb + (1 - alpha) * colour


def over_bytes(rgba: npt.NDArray[np.uint8], colour: Colour8) -> npt.NDArray[np.uint8]:
    """Straight RGBA [..., 4] over a colour of 0 to 255, rounded: uint8 [..., 3], in integers alone."""
    import numpy as np  # here, since settings name colours

    alpha = rgba[..., 3:].astype(np.uint16)
    below = (255 - alpha) * np.array(colour, np.uint16)
    return ((rgba[..., :3] * alpha + below + 127) // 255).astype(np.uint8)


def colour_of(text: str) -> Colour8 | None:
    """Red, green, blue in 0 to 255 of a name, `r,g,b` or `#rrggbb`; None for any other text.

    >>> colour_of("grey128"), colour_of("#ff8000"), colour_of("1,2,3"), colour_of("plaid")
    ((128, 128, 128), (255, 128, 0), (1, 2, 3), None)
    """
    if text in NAMED:
        return NAMED[text]
    try:
        if text.startswith("#"):
            if len(text) != 7:
                return None
            values = tuple(bytes.fromhex(text[1:]))
        else:
            values = tuple(int(part) for part in text.split(","))
    except ValueError:
        return None
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        return None
    return values[0], values[1], values[2]
