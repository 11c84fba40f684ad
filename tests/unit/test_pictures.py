"""How an image is opened for a model: upright, in RGB, the first frame; and what is not opened."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.seeing import embedded, png_of
from tunesift import MissingExtra
from tunesift.images import picture
from tunesift.records import RowFault

Image = pytest.importorskip("PIL.Image", reason='needs the "vision" extra')
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_an_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    wide = Image.new("RGB", (4, 2), RED)
    wide.putpixel((0, 0), BLUE)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    wide.save(tmp_path / "a.png", exif=exif)
    seen = picture("a.png", tmp_path)
    assert seen.size == (2, 4)
    assert seen.getpixel((1, 0)) == BLUE


@pytest.mark.parametrize(("mode", "colour", "kind"), [
    ("CMYK", (0, 255, 255, 0), "TIFF"), ("RGBA", (255, 0, 0, 255), "PNG"), ("P", 0, "PNG"), ("RGB", RED, "WEBP"),
])  # fmt: skip
def test_every_mode_is_seen_in_rgb(tmp_path: Path, mode: str, colour: object, kind: str) -> None:
    image = Image.new(mode, (3, 3), colour)
    if mode == "P":
        image.putpalette([*RED, *GREEN])
    image.save(tmp_path / "a", kind)
    seen = picture("a", tmp_path)
    assert seen.mode == "RGB"
    assert all(abs(a - b) < 4 for a, b in zip(seen.getpixel((1, 1)), RED, strict=True))


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    Image.new("I;16", (2, 2), 128 * 256).save(tmp_path / "a.png")
    assert picture("a.png", tmp_path).getpixel((0, 0)) == (128, 128, 128)


def test_of_several_frames_the_first_is_seen(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in (GREEN, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert picture("a.gif", tmp_path).getpixel((0, 0)) == GREEN


def test_an_image_in_the_row_itself_is_opened(tmp_path: Path) -> None:
    assert picture(embedded(BLUE), tmp_path).getpixel((0, 0)) == BLUE


def test_without_pillow_no_image_is_opened_and_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r'images need the "vision" extra: pip install "tunesift\[vision\]"'):
        picture("a.png", tmp_path)


@pytest.mark.parametrize(("name", "code"), [
    ("../a.png", "E803"), ("/etc/passwd", "E803"), ("link/a.png", "E803"), ("a\0.png", "E803"), ("http://x.org/a.png", "E804"),
    ("nowhere.png", "E407"), (".", "E407"), ("text.png", "E407"), ("bomb.png", "E405"), ("large.png", "E405"),
    ("data:image/png;base64,!!!!", "E205"), ("data:image/png;base64,AAAA", "E407"),
])  # fmt: skip
def test_what_is_not_opened_says_why(tmp_path: Path, name: str, code: str) -> None:
    home = tmp_path / "data"
    home.mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (home / "link").symlink_to(tmp_path)
    (home / "text.png").write_text("no image")
    for large, side in (("bomb.png", 60_000), ("large.png", 7_000)):
        (home / large).write_bytes(png_of(side))
    with pytest.raises(RowFault) as caught:
        picture(name, home)
    assert caught.value.code == code
    assert len(caught.value.message) < 200
