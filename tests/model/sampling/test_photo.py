"""A picture becomes a first view, and what was done to it is said."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.sampling.photo import FILL, prepare_photo


def disc(width, height, centre, radius, background=None, mode="RGBA"):
    rows, columns = np.mgrid[:height, :width]
    inside = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < radius**2
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[inside] = (200, 40, 30)
    if mode == "RGBA":
        return Image.fromarray(np.dstack([rgb, np.where(inside, 255, 0).astype(np.uint8)]))
    rgb[~inside] = background
    return Image.fromarray(rgb)


def test_alpha_is_used_and_the_background_shows_through():
    photo = prepare_photo(disc(200, 100, (150, 50), 30), 64, background=(128, 128, 128))
    assert photo.rgb.shape == (64, 64, 3)
    assert any("alpha channel" in note for note in photo.notes)
    assert any("cropped" in note for note in photo.notes)
    assert tuple(photo.rgb[0, 0]) == (128, 128, 128)
    assert tuple(photo.rgb[32, 32]) == (200, 40, 30)


def test_cropped_object_is_centred_and_fills_its_share():
    photo = prepare_photo(disc(300, 200, (60, 140), 40), 100)
    columns, rows = np.nonzero(photo.alpha.max(0) > 0.5)[0], np.nonzero(photo.alpha.max(1) > 0.5)[0]
    assert abs(len(columns) / 100 - FILL) < 0.03
    assert abs(columns.mean() - 49.5) < 1.5 and abs(rows.mean() - 49.5) < 1.5


def test_a_render_keeps_its_framing():
    photo = prepare_photo(disc(128, 128, (40, 64), 20), 32)
    assert "kept its framing" in photo.notes
    assert abs(np.nonzero(photo.alpha.max(0) > 0.5)[0].mean() / 32 - 40 / 128) < 0.03


def test_flat_background_is_cut_out():
    photo = prepare_photo(disc(200, 160, (80, 80), 50, background=(10, 200, 10), mode="RGB"), 64)
    assert any("flat background" in note for note in photo.notes)
    assert tuple(photo.rgb[0, 0]) == (255, 255, 255)
    assert tuple(photo.rgb[32, 32]) == (200, 40, 30)


def test_background_colour_enclosed_by_the_object_stays():
    image = np.full((100, 100, 3), 255, np.uint8)
    image[20:80, 20:80] = (0, 0, 200)
    image[45:55, 45:55] = 255
    photo = prepare_photo(Image.fromarray(image), 100)
    assert photo.alpha[50, 50] == 1.0
    assert photo.alpha[2, 2] == 0.0


@pytest.fixture
def noise(tmp_path):
    """A photo without alpha before no flat background, 120 x 80."""
    pixels = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def test_without_matte_a_photo_is_refused_and_both_ways_out_are_named(noise):
    with pytest.raises(
        InputError, match=r"noise\.png: neither alpha nor a flat background.*--matte rembg"
    ) as e:
        prepare_photo(noise, 40)
    assert "--matte none" in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(InputError, match="--matte green: choose from flat, rembg, none"):
        prepare_photo(noise, 40, matte="green")


def test_the_whole_image_is_taken_where_asked_for(noise):
    photo = prepare_photo(noise, 40, matte="none")
    assert "the whole image is taken for the object" in photo.notes
    assert any("middle 80 x 80" in note for note in photo.notes)
    assert photo.alpha.min() == 1.0
    flat = disc(128, 128, (40, 64), 20, background=(10, 200, 10), mode="RGB")
    assert tuple(prepare_photo(flat, 64, matte="none").rgb[0, 0]) == (10, 200, 10)
    alpha = prepare_photo(disc(128, 128, (40, 64), 20), 32, matte="none")
    assert any("alpha channel" in note for note in alpha.notes), "a matte that is there is used"


def test_rembg_cuts_a_photo_out(noise, monkeypatch):
    def remove(frame, session, only_mask):
        assert frame.shape == (80, 120, 3) and only_mask
        mask = np.zeros((80, 120), np.uint8)
        mask[20:60, 30:70] = 255
        return mask

    fake = types.SimpleNamespace(new_session=lambda: None, remove=remove)
    monkeypatch.setitem(sys.modules, "rembg", fake)
    photo = prepare_photo(noise, 40, matte="rembg")
    assert "matte made by rembg" in photo.notes
    assert photo.alpha[20, 20] == 1 and photo.alpha[1, 1] == 0
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(InputError, match=r"pip install 'orbit4d\[rembg\]'"):
        prepare_photo(noise, 40, matte="rembg")


def test_photos_of_16_bits_and_turned_ones(tmp_path):
    grey = np.full((40, 60), 65_535, np.uint16)
    grey[10:30, 15:45], grey[15:20, 20:30] = 25_700, 51_400
    Image.fromarray(grey).save(tmp_path / "deep.png")
    photo = prepare_photo(tmp_path / "deep.png", 60, crop=False)
    assert sorted(set(photo.rgb[..., 0].ravel()) & {100, 200}) == [100, 200]
    exif = Image.Exif()
    exif[0x0112] = 8
    tall = np.rot90(np.asarray(disc(60, 90, (30, 20), 12, background=(255, 255, 255), mode="RGB")), -1)
    Image.fromarray(np.ascontiguousarray(tall)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    photo = prepare_photo(tmp_path / "turned.jpg", 60, crop=False)
    assert "read 60 x 90" in photo.notes and tuple(photo.rgb[6, 30] // 60) == (3, 0, 0)


def test_transparent_colours_do_not_bleed_in():
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[16:48, 16:48] = (0, 0, 255, 255)
    photo = prepare_photo(Image.fromarray(rgba), 18)
    edge = (photo.alpha > 0.05) & (photo.alpha < 0.95)
    assert edge.any(), "a soft edge is what could bleed"
    white = 255 * (1 - photo.alpha)
    assert np.abs(photo.rgb[..., 0] - white)[edge].max() <= 2


def test_crop_can_be_asked_for_and_refused():
    image = disc(128, 128, (40, 64), 20)
    assert any("cropped" in note for note in prepare_photo(image, 32, crop=True).notes)
    wide = disc(200, 100, (100, 50), 30)
    assert not any("cropped" in note for note in prepare_photo(wide, 32, crop=False).notes)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "I;16", "CMYK"])
def test_other_modes_are_read(mode):
    image = Image.new(mode, (50, 40)) if mode == "I;16" else disc(50, 40, (25, 20), 10).convert(mode)
    if mode in ("P", "L", "CMYK", "I;16"):
        try:
            assert prepare_photo(image, 16).rgb.shape == (16, 16, 3)
        except InputError as error:
            assert "empty" in str(error), "one flat colour is the only reason to refuse"
    else:
        assert prepare_photo(image, 16).rgb.shape == (16, 16, 3)


def test_bad_pictures_are_one_line(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    good = tmp_path / "good.png"
    disc(64, 64, (32, 32), 20).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:200])
    for path, says in [
        (tmp_path / "absent.png", "no such file"),
        (tmp_path / "text.png", "not a readable image"),
        (tmp_path / "cut.png", "not a readable image"),
    ]:
        with pytest.raises(InputError, match=says) as caught:
            prepare_photo(path, 32)
        assert "\n" not in str(caught.value)
    for empty in (Image.new("RGBA", (20, 20)), Image.new("RGB", (20, 20), (9, 9, 9))):
        with pytest.raises(InputError, match="empty"):
            prepare_photo(empty, 32)
