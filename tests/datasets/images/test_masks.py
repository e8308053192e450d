"""Masks mean what their authors meant, whatever values they hold, and go with the image of their name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.masks import join_masks, mask_files, read_masks


def shape(n: int = 3) -> np.ndarray:
    """True inside the object, [n, 20, 30]; the first mask is empty."""
    inside = np.zeros((n, 20, 30), bool)
    for i in range(1, n):
        inside[i, 5:15, 5 * i : 5 * i + 8] = True
    return inside


def save(folder: Path, images: list[Image.Image], suffix: str = ".png", **options: Any) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{i}{suffix}" for i in range(len(images))]
    for file, image in zip(files, images):
        image.save(file, **options)
    return files


def grey(inside: np.ndarray, value: int, ground: int = 0) -> list[Image.Image]:
    return [Image.fromarray(np.where(m, value, ground).astype(np.uint8)) for m in inside]


def indexed(inside: np.ndarray, colours: list[int], labels: tuple[int, int] = (0, 1)) -> list[Image.Image]:
    images = []
    for mask in inside:
        image = Image.fromarray(np.where(mask, labels[1], labels[0]).astype(np.uint8), "P")
        image.putpalette(colours)
        images.append(image)
    return images


def coloured(inside: np.ndarray, alpha: bool) -> list[Image.Image]:
    out = np.zeros((*inside.shape, 4), np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (*inside.shape, 3))
    out[..., :3] = np.where(inside[..., None], noise, 90)
    out[..., 3] = np.where(inside, 255, 0)
    return [Image.fromarray(picture if alpha else picture[..., :3].copy()) for picture in out]


def two_instances(inside: np.ndarray) -> list[Image.Image]:
    labels = inside.astype(np.uint8)
    labels[:, 10:] *= 3
    return [Image.fromarray(plane) for plane in labels]


def red_and_blue(inside: np.ndarray) -> list[Image.Image]:
    rgb = np.zeros((*inside.shape, 3), np.uint8)
    rgb[inside], rgb[:, 10:][inside[:, 10:]] = [200, 0, 0], [0, 0, 90]
    return [Image.fromarray(picture) for picture in rgb]


KINDS = {
    "grey": lambda m: grey(m, 255),
    "labels 0 1": lambda m: grey(m, 1),
    "labels 0 3": two_instances,
    "half": lambda m: grey(m, 128),
    "not quite black": lambda m: grey(m, 250, 4),
    "bilevel": lambda m: [image.convert("1") for image in grey(m, 255)],
    "16 bits": lambda m: [Image.fromarray(np.where(mask, 65535, 0).astype(np.uint16)) for mask in m],
    "16-bit labels": lambda m: [Image.fromarray(mask.astype(np.uint16)) for mask in m],
    "32-bit labels": lambda m: [Image.fromarray(mask.astype(np.int32)) for mask in m],
    "palette": lambda m: indexed(m, [0, 0, 0, 128, 0, 0]),
    "palette, black last": lambda m: indexed(m, [40, 200, 90, 0, 0, 0], (1, 0)),
    "palette of greys": lambda m: indexed(m, [0, 0, 0, 255, 255, 255]),
    "palette, white first": lambda m: indexed(m, [255, 255, 255, 0, 0, 0], (1, 0)),
    "cut out": lambda m: coloured(m, True),
    "colours": red_and_blue,
    "grey and alpha": lambda m: [Image.merge("LA", [Image.new("L", (30, 20), 255), k]) for k in grey(m, 255)],
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
def test_values_of_every_kind(tmp_path: Path, kind: str) -> None:
    inside = shape()
    suffix = ".tif" if kind.startswith("32") else ".png"
    planes, notes = read_masks(save(tmp_path / "m", KINDS[kind](inside), suffix), "--mask m")
    np.testing.assert_array_equal(np.stack(list(planes)), np.where(inside, 255, 0))
    told = {
        "labels 0 1": "0 is taken for background, 1",
        "labels 0 3": "labels 0 to 3",
        "half": "128 for the object",
    }
    if kind in told:
        assert told[kind] in notes[0]
    if kind in ("grey", "bilevel", "cut out"):
        assert notes == ()


def test_soft_mattes_stay_soft(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 30).astype(np.uint8), (20, 1))
    for i, image in enumerate((Image.fromarray(ramp), Image.fromarray(ramp.astype(np.uint16) * 257))):
        planes, notes = read_masks(save(tmp_path / f"m{i}", [image]), "--mask m")
        np.testing.assert_array_equal(next(planes), ramp)
        assert notes == ()


def test_masks_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = [Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(m)))) for m in grey(shape(), 1)]
    planes, _ = read_masks(save(tmp_path / "m", stored, exif=exif), "--mask m")
    np.testing.assert_array_equal(np.stack(list(planes)), np.where(shape(), 255, 0))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (lambda: grey(shape() & False, 255), "every pixel is 0: give 0 for the background and 255"),
        (lambda: grey(shape() | True, 255), "every pixel is 255"),
        (lambda: coloured(shape(), False), r"2?1\.png: .*an image of \d+ colours and no mask"),
    ],
)
def test_what_is_no_mask_is_named(tmp_path: Path, images: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        read_masks(save(tmp_path / "m", images()), "--mask m")
    assert str(error.value).startswith("--mask m: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "masks", "joined"),
    [
        (["b.jpg", "a.jpg"], ["a.png", "b.png", "c.png"], ["b.png", "a.png"]),
        (["f1.jpg", "f2.jpg"], ["f2.jpg.png", "f1.jpg.png"], ["f1.jpg.png", "f2.jpg.png"]),
        (["f1.png", "f2.png"], ["f2_mask.png", "f1_mask.png"], ["f1_mask.png", "f2_mask.png"]),
        (["view_2.png", "view_10.png"], ["10.png", "02.png"], ["02.png", "10.png"]),
    ],
)
def test_masks_go_with_the_image_of_their_name(
    images: list[str], masks: list[str], joined: list[str]
) -> None:
    found = join_masks("m", [Path("m") / name for name in masks], [Path("x") / name for name in images])
    assert [file.name for file in found] == joined


def test_masks_of_frames_in_several_folders(tmp_path: Path) -> None:
    images = [tmp_path / "x" / f"cam{k}" / "0.png" for k in (2, 10)]
    for k in (2, 10):
        save_to = tmp_path / "m" / f"cam{k}"
        save_to.mkdir(parents=True)
        Image.new("L", (4, 4)).save(save_to / "0.png")
    masks = mask_files(tmp_path / "m")
    assert [mask.parent.name for mask in masks] == ["cam2", "cam10"]
    assert join_masks("m", masks, images[::-1]) == masks[::-1]
    with pytest.raises(InputError, match=r"0\.png goes with several frames"):
        join_masks("m", [Path("flat/0.png")], images)


def test_an_image_without_a_mask_is_named() -> None:
    with pytest.raises(InputError, match=r"--mask m: no mask for f2\.png \(1 images for 2 frames\)"):
        join_masks("m", [Path("m/f1.png")], [Path("f1.png"), Path("f2.png")])
    with pytest.raises(InputError, match=r"no mask for left\.png"):
        join_masks("m", [Path("m/1.png"), Path("m/2.png")], [Path("left.png"), Path("right.png")])
