"""Images of every kind come in as straight 8-bit RGBA, upright, in natural order."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally, number_of
from orbit4d.datasets.images.folders import image_files, read_image, read_images, read_sized_image, rgba_of


def test_natural_order_compares_numbers_folder_by_folder() -> None:
    names = ["view10/2.png", "view2/11.png", "view2/9.png", "view2", "b.png", "a.png", "view2/09.png"]
    assert naturally(names) == [
        "a.png", "b.png", "view2", "view2/09.png", "view2/9.png", "view2/11.png", "view10/2.png",
    ]  # fmt: skip
    assert naturally([Path("r_100"), Path("r_99"), Path("r_7")]) == [Path("r_7"), Path("r_99"), Path("r_100")]
    assert [number_of(n) for n in ("cam3/left2_frame12.png", "x.png", "007.v1.tif")] == [12, None, 1]


def test_files_are_listed_in_natural_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("f9.png", "f10.PNG", "f1.jpg", "._f1.jpg", ".hidden.png", "notes.txt", "f2.tif"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in image_files(tmp_path)] == ["f1.jpg", "f2.tif", "f9.png", "f10.PNG"]
    assert image_files(tmp_path / "absent") == []


def corner(w: int = 30, h: int = 20) -> np.ndarray:
    """Red above left, green above right, blue below: no turn leaves it as it is."""
    rgb = np.zeros((h, w, 3), np.uint8)
    rgb[: h // 2, : w // 2], rgb[: h // 2, w // 2 :], rgb[h // 2 :] = [220, 0, 0], [0, 190, 0], [0, 0, 240]
    return rgb


#: How a camera that stores with this orientation has turned what it saw.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", list(STORED))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_orientation_is_heeded(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](corner())))
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if suffix == ".jpg" else {}
    if suffix == ".webp":
        options = {"lossless": True}
    image.save(tmp_path / f"a{suffix}", exif=exif, **options)
    pixels, size = read_sized_image(tmp_path / f"a{suffix}")
    assert pixels.shape == (20, 30, 4) and size == (30, 20)
    assert np.abs(pixels[..., :3].astype(int) - corner()).mean() < 4, "the codec strays a little at edges"


def test_palettes_keep_their_transparency_also_when_turned(tmp_path: Path) -> None:
    indices = np.zeros((12, 16), np.uint8)
    indices[:, 8:], indices[6:, :8] = 1, 2
    image = Image.fromarray(indices, "P")
    image.putpalette([10, 20, 30, 200, 100, 50, 250, 250, 250])
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "a.png", transparency=bytes([0, 255, 100]), exif=exif)
    pixels = read_image(tmp_path / "a.png")[::-1, ::-1]
    assert tuple(pixels[0, 0]) == (10, 20, 30, 0)
    assert tuple(pixels[0, 12]) == (200, 100, 50, 255) and tuple(pixels[9, 2]) == (250, 250, 250, 100)
    image.save(tmp_path / "b.png", transparency=1)
    assert read_image(tmp_path / "b.png")[3, 12, 3] == 0


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, [H, W, 2, 3 or 4] uint16, which Pillow does not write."""
    import struct
    import zlib

    h, w, channels = values.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", w, h, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_sixteen_bits_become_the_nearest_eight(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 20_000, 65_535], [32_768, 40_000, 128, 129]], np.uint16)
    expected = np.rint(grey / 257).astype(int)
    for suffix in (".png", ".tif"):
        Image.fromarray(grey).save(tmp_path / f"a{suffix}")
        pixels = read_image(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(pixels[..., 0], expected)
        assert (pixels[..., 3] == 255).all() and (pixels[..., 0] == pixels[..., 2]).all()
    (tmp_path / "a.pgm").write_bytes(b"P5 4 2 65535\n" + grey.astype(">u2").tobytes())
    np.testing.assert_allclose(read_image(tmp_path / "a.pgm")[..., 0], expected, atol=1)
    for channels in (2, 3, 4):
        deep = np.random.default_rng(channels).integers(0, 65_536, (5, 6, channels)).astype(np.uint16)
        (tmp_path / "deep.png").write_bytes(png16(deep))
        wanted = deep[..., [0, 0, 0, 1]] if channels == 2 else deep
        pixels = read_image(tmp_path / "deep.png")[..., : wanted.shape[-1]].astype(int)
        assert np.abs(pixels - wanted / 257).max() <= 1


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "HSV"]
)
def test_every_mode_gives_the_colours_that_pillow_shows(mode: str) -> None:
    step = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    image = Image.fromarray(corner()).convert(step).convert(mode)
    shown = rgba_of(image)
    assert shown.shape == (20, 30, 4) and (shown[..., 3] == 255).all()
    grey = mode in ("1", "L", "LA", "La")
    wanted = np.asarray(Image.fromarray(corner()).convert("L").convert("RGB")) if grey else corner()
    assert np.abs(shown[..., :3].astype(int) - wanted).mean() < {"1": 90, "P": 30, "PA": 30}.get(mode, 3)


P3 = np.array([[0.51512, 0.29198, 0.1571], [0.2412, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]])


def matrix_profile(to_xyz: np.ndarray) -> bytes:
    """An ICC profile (version 2) of three primaries at D50 and gamma 2.2."""
    import struct

    def xyz(values: Any) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    name = b"wide\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(79)
    gamma = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)) + bytes(2)
    tags = {b"desc": desc, b"cprt": b"text" + bytes(4) + b"none\0\0\0\0", b"wtpt": xyz((0.9642, 1, 0.8249))}
    for i, letter in enumerate(b"rgb"):
        tags[bytes([letter]) + b"XYZ"], tags[bytes([letter]) + b"TRC"] = xyz(to_xyz[:, i]), gamma
    at, table, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def test_colour_profiles_are_heeded(tmp_path: Path) -> None:
    from PIL import ImageCms

    colours = np.array([[[200, 100, 50], [40, 180, 90], [128, 128, 128], [90, 60, 160]]], np.uint8)
    light = (np.linalg.inv(SRGB) @ P3 @ ((colours[0] / 255) ** 2.2).T).clip(0, 1)
    wanted = (
        np.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clip(1e-9) ** (1 / 2.4) - 0.055).T * 255
    )
    assert np.abs(wanted - colours[0]).max() > 12, "it would matter"
    Image.fromarray(colours).save(tmp_path / "p3.png", icc_profile=matrix_profile(P3))
    assert np.abs(read_image(tmp_path / "p3.png")[0, :, :3] - wanted).max() < 3
    clear = np.dstack([colours, np.full((1, 4), 90, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png", icc_profile=matrix_profile(P3))
    pixels = read_image(tmp_path / "clear.png")[0]
    assert np.abs(pixels[:, :3] - wanted).max() < 3 and (pixels[:, 3] == 90).all()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (srgb, lab, b"no profile"):
        Image.fromarray(colours).save(tmp_path / "same.png", icc_profile=profile)
        np.testing.assert_array_equal(read_image(tmp_path / "same.png")[..., :3], colours)


def test_folders_are_reduced_one_by_one_without_bleeding(tmp_path: Path) -> None:
    for i in range(3):
        rgba = np.zeros((64, 96, 4), np.uint8)
        rgba[..., 1] = 255  # green under alpha 0
        rgba[16:49, 32:65] = [200, 0, 40 * i, 255]
        Image.fromarray(rgba).save(tmp_path / f"{9 + i}.png")
    small = read_images(tmp_path, max_edge=30)
    assert small.shape == (3, 20, 30, 4)
    assert [int(frame[10, 15, 2]) for frame in small] == [0, 40, 80], "9, 10, 11"
    seen = small[..., 3] > 0
    assert (small[..., 1][seen] <= 2).all(), "colours of transparent pixels stay out"
    assert (seen & (small[..., 3] < 255)).sum() > 0
    listed = read_images([tmp_path / "11.png", tmp_path / "9.png"])
    assert listed.shape == (2, 64, 96, 4) and listed[0, 20, 40, 2] == 80


def test_bad_images_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(png16(np.zeros((4, 4, 3), np.uint16))[:45])
    (tmp_path / "text.jpg").write_text("no image")
    Image.fromarray(np.full((3, 3), 7.0, np.float32)).save(tmp_path / "far.tif")
    for name, says in [
        ("cut.png", "not a readable image"),
        ("text.jpg", "not a readable image"),
        ("far.tif", "outside"),
        ("absent.png", "no such file"),
    ]:
        with pytest.raises(InputError, match=says) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    with pytest.raises(InputError, match="no image in this folder"):
        read_images(tmp_path / "absent")
    good = tmp_path / "good"
    good.mkdir()
    for i, size in enumerate([(8, 6), (6, 8)]):
        Image.new("RGB", size).save(good / f"{i}.png")
    with pytest.raises(InputError, match=r"0\.png 8x6, 1\.png 6x8"):
        read_images(good)
    assert rgba_of(io.BytesIO((good / "0.png").read_bytes())).shape == (6, 8, 4)
