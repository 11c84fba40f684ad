"""The entries of the corpus of bad input that are about images (66 to 70), and what a text-only user pays for them."""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesift import read_dataset, recipe_for, run_recipe
from tunesift.notes import NO_IMAGE, UNSEEN

GOOD = {"instruction": "What?", "output": "That."}


def read_with(images: list[str], folder: Path) -> tuple[list[str], dict[str, int]]:
    """Codes of the rows that were set aside, and the notes, of a file with one image a row beside rows of text."""
    rows: list[dict[str, Any]] = [
        {"instruction": f"{n} <image>", "output": "y", "images": [i]} for n, i in enumerate(images)
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (GOOD, *rows)))
    data = read_dataset(folder / "a.jsonl")
    assert data.source
    assert len(data) == 1 + len(images) - len(data.source.broken)
    assert all(b.message.isprintable() and len(b.message) < 250 for b in data.source.broken)
    return [b.code for b in data.source.broken], dict(data.source.notes)


def image(mode: str = "RGB", size: tuple[int, int] = (40, 30), kind: str = "PNG", **how: Any) -> bytes:
    """An image file."""
    pillow = pytest.importorskip("PIL.Image", reason='needs the "images" extra')
    out = io.BytesIO()
    pillow.effect_noise(size, 80).convert("RGB" if mode == "I;16" else mode).save(out, kind, **how)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says how large it is, and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rows + chunk(b"IEND", b"")


@pytest.mark.parametrize("path", ["../outside.png", "/etc/passwd", "link/outside.png", "a/../../x.png", "x\0.png"])
def test_66_an_image_outside_the_folder_is_not_touched(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (tmp_path / "outside.png").write_bytes(image())
    assert read_with([path], folder) == (["E803"], {})


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest/meta-data", "https://x.org/a.png", "HTTP://x.org/a.png", "file:///etc/passwd"],
)
def test_67_an_image_that_is_an_address_is_not_fetched(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("something was fetched"))
    assert read_with([url], tmp_path) == (["E804"], {})
    turns = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]},
        {"role": "assistant", "content": "y"},
    ]
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": [{**turns[0], "content": "x"}, turns[1]]})
    )
    source = read_dataset(tmp_path / "b.jsonl").source
    assert source
    assert [b.code for b in source.broken] == ["E804"]


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (8_000, 8_000), (40_000_001, 1)])
def test_68_an_image_of_too_many_pixels_is_known_by_its_header(width: int, height: int, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason='needs the "images" extra')
    (tmp_path / "large.png").write_bytes(png_header(width, height))
    assert read_with(["large.png"], tmp_path) == (["E405"], {})


BAD: dict[str, Callable[[], bytes]] = {
    "cut.jpg": lambda: image(kind="JPEG", size=(400, 300))[:9_000],
    "cut.png": lambda: image()[:900],
    "drawing.svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "nothing.png": lambda: b"",
    "text.png": lambda: b"not an image",
    "post.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


def _frame() -> Any:
    return pytest.importorskip("PIL.Image").effect_noise((40, 30), 20)


@pytest.mark.parametrize("name", BAD)
def test_69_an_image_that_is_cut_or_no_image_is_set_aside(name: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason='needs the "images" extra')
    (tmp_path / name).write_bytes(BAD[name]())
    assert read_with([name], tmp_path) == (["E407"], {})


def test_69_images_of_every_mode_and_of_several_frames_are_accepted(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason='needs the "images" extra')
    turned = pillow.Exif()
    turned[0x0112] = 6
    sound = {
        "print.jpg": image("CMYK", kind="JPEG"), "painted.png": image("P"), "glass.png": image("RGBA"),
        "grey-glass.png": image("LA"), "turned.jpg": image(kind="JPEG", exif=turned), "still.gif": image(kind="GIF"),
        "moving.gif": image(kind="GIF", save_all=True, append_images=[_frame()]),
        "moving.webp": image(kind="WEBP", save_all=True, append_images=[_frame()]),
        "pages.tiff": image(kind="TIFF", save_all=True, append_images=[_frame()]),
    }  # fmt: skip
    for name, content in sound.items():
        (tmp_path / name).write_bytes(content)
    pillow.new("I;16", (9, 9), 40_000).save(tmp_path / "deep.png")
    names = [*sound, "deep.png", str(tmp_path / "deep.png"), "not/there.png"]
    assert read_with(names, tmp_path) == ([], {NO_IMAGE: 1})


def test_69_an_image_of_several_frames_whose_first_is_cut_is_set_aside(tmp_path: Path) -> None:
    moving = image(kind="GIF", save_all=True, append_images=[_frame()])
    (tmp_path / "cut.gif").write_bytes(moving[:300])
    assert read_with(["cut.gif"], tmp_path) == (["E407"], {})


def test_70_an_image_in_the_row_itself_is_base64_or_it_is_set_aside(tmp_path: Path) -> None:
    sound = base64.b64encode(image()).decode()
    cut = base64.b64encode(image()[:900]).decode()
    images = [f"data:image/png;base64,{part}" for part in (sound, sound[:-1], f"{sound[:20]}*{sound[20:]}", cut)]
    assert read_with([*images, "data:image/png,plain", "data:"], tmp_path) == (
        ["E205", "E205", "E407", "E205", "E205"],
        {},
    )


def test_images_that_parquet_holds_are_looked_at_and_come_back_as_they_were(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason='needs the "images" extra')
    rows = [
        {"instruction": f"{n} <image>?", "output": "y", "image": {"bytes": content, "path": f"{n}.png"}}
        for n, content in enumerate((image(), image()[:900], b"<svg>", image(kind="JPEG")))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = read_dataset(tmp_path / "a.parquet").source
    assert source
    assert [(b.code, b.place.line) for b in source.broken] == [("E407", 2), ("E407", 3)]
    for name in ("kept.parquet", "kept.jsonl"):
        run_recipe(
            recipe_for("select", tmp_path / "a.parquet", tmp_path / name, ["keep.kind=random", "keep.fraction=1.0"])
        )
        again = list(read_dataset(tmp_path / name))
        assert [r.messages[0].images[0].partition(";")[0] for r in again] == ["data:image/png", "data:image/jpeg"]
    assert pq.read_table(tmp_path / "kept.parquet").to_pylist() == [rows[0], rows[3]]


def test_without_the_extra_images_are_not_looked_at_and_the_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "cut.png").write_bytes(b"not an image")
    assert read_with(["cut.png", "cut.png", "../x.png"], tmp_path) == (["E803"], {UNSEEN: 1})


def test_text_alone_loads_no_library_for_images(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD))
    script = f"import sys, tunesift; tunesift.read_dataset({str(tmp_path / 'a.jsonl')!r}); print('PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_an_image_that_may_not_be_read_sets_its_row_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str, mode: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr("tunesift.images.open", denied, raising=False)
    codes, _ = read_with(["a.png"], tmp_path)
    assert codes == ["E407"]
