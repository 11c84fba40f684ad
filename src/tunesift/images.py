"""Can an image that a row names be used? It lies in the data set's folder, is whole, and not too large; and how does a
model see it?"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tunesift.errors import MissingExtra, shown
from tunesift.notes import NO_IMAGE, UNSEEN
from tunesift.records import RowFault

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 40_000_000
"""Width times height of an image."""
_TURNED = 0x0112
"""EXIF's number for how an image is to be turned; 1 for not at all."""
_TOO_LARGE = ("E405", f"an image has more than {MAX_PIXELS:,} pixels")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DATA = re.compile(r"data:[\w.+/-]*(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError, struct.error,
           zlib.error)  # fmt: skip
"""What a damaged image makes Pillow raise."""


class Images:
    """Looks at each image of a data set once; paths begin at `home`."""

    def __init__(self, home: Path, notes: Counter[str]) -> None:
        self._home, self._notes = os.path.realpath(home), notes
        self._seen: dict[str, tuple[str, str] | None] = {}

    def check(self, images: Iterable[str]) -> None:
        """Raise `RowFault` for an image that cannot be used; nothing is fetched."""
        for image in images:
            if image[:5].lower() == "data:":
                _raise(self._look(io.BytesIO(_embedded(image))))
            else:
                self._check_file(_inside(image, self._home))

    def _check_file(self, path: str) -> None:
        if path not in self._seen:
            self._seen[path] = None
            if os.path.isfile(path):
                self._seen[path] = self._look_into(path)
            else:
                self._notes[NO_IMAGE] += 1
        _raise(self._seen[path])

    def _look_into(self, path: str) -> tuple[str, str] | None:
        try:
            with open(path, "rb") as file:
                return self._look(file)
        except OSError as error:
            return "E407", f"an image cannot be read ({type(error).__name__}: {error.strerror}); check its permissions"

    def _look(self, file: IO[bytes]) -> tuple[str, str] | None:
        """Code and reason where the image cannot be used; None where it can."""
        try:
            from PIL import Image
        except ImportError:
            self._notes[UNSEEN] += 1
            return None
        with _quiet():
            try:
                with Image.open(file, formats=_FORMATS) as image:
                    return _trouble(image)
            except (Image.DecompressionBombError, Image.DecompressionBombWarning):
                return _TOO_LARGE
            except _BROKEN as error:
                why = "cut off, damaged, or of a kind that is not read"
                return "E407", f"an image is {why} ({type(error).__name__})"


def picture(image: str, home: Path) -> Picture:
    """An image as a model is to see it: upright, as its EXIF says, in RGB, of several frames the first.

    Raises `RowFault` for what cannot be used, an address, and a path that leads out of `home`; nothing is fetched.
    `MissingExtra` without Pillow.
    """
    embedded = image[:5].lower() == "data:"
    place = io.BytesIO(_embedded(image)) if embedded else _inside(image, os.path.realpath(home))
    return _seen(place, f'the image "{shown(image[:40])}"')


def _seen(place: str | IO[bytes], name: str) -> Picture:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtra('images need the "vision" extra: pip install "tunesift[vision]".') from error
    try:
        with _quiet(), Image.open(place, formats=_FORMATS) as opened:
            small = opened.width * opened.height <= MAX_PIXELS
            seen = _in_colour(ImageOps.exif_transpose(opened)) if small else None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        seen = None
    except _BROKEN as error:
        raise RowFault("E407", f"{name} cannot be read ({type(error).__name__})") from None
    if seen is None:
        raise RowFault("E405", f"{name} has more than {MAX_PIXELS:,} pixels")
    return seen


def bytes_digest(image: str, home: Path) -> str:
    """SHA-256 of the bytes of an image file in `home`, in hexadecimal; empty where there is none that can be read."""
    try:
        path = _inside(image, os.path.realpath(home))
        if not os.path.isfile(path):
            return ""
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (RowFault, OSError):
        return ""


def image_bytes(image: str, home: Path, most: int = -1) -> bytes:
    """An image's own bytes, of a file in `home` or of the row itself; raises `RowFault` for what cannot be read. Of a
    file at most so many, where that is not below 0."""
    if image[:5].lower() == "data:":
        return _embedded(image)
    try:
        with open(_inside(image, os.path.realpath(home)), "rb") as file:
            return file.read(most)
    except OSError as error:
        raise RowFault("E407", f'the image "{shown(image[:40])}" cannot be read ({type(error).__name__})') from None


def plain_bytes(raw: bytes, most: int) -> bytes:
    """An image for who may not read it as `picture` does: its own bytes where these are JPEG, PNG or WebP of one frame,
    upright and in RGB, and otherwise what `picture` shows, as PNG, or as JPEG where PNG has more than `most` bytes.

    Its own, too, where they cannot be read here; raises `RowFault` for too many pixels.
    """
    try:
        from PIL import Image
    except ImportError:
        return raw
    try:
        with _quiet(), Image.open(io.BytesIO(raw), formats=_FORMATS) as opened:
            is_plain = _is_plain(opened)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        is_plain = False
    except _BROKEN:
        is_plain = True
    if is_plain:
        return raw
    seen = _seen(io.BytesIO(raw), "the image")
    made = _encoded(seen, "PNG")
    return made if len(made) <= most else _encoded(seen, "JPEG", quality=95)


def eight_bits(raw: bytes) -> bytes:
    """An image's own bytes for who cuts every value off at 255; of one of 16 bits a channel, what `picture` shows, as
    PNG."""
    from PIL import Image

    with _quiet(), Image.open(io.BytesIO(raw), formats=_FORMATS) as opened:
        is_deep = _is_deep(opened)
    return _encoded(_seen(io.BytesIO(raw), "the image"), "PNG") if is_deep else raw


def _is_plain(image: ImageFile) -> bool:
    if image.format not in ("JPEG", "PNG", "WEBP") or image.width * image.height > MAX_PIXELS:
        return False
    is_rgb = image.mode == "RGB" and "transparency" not in image.info
    return is_rgb and getattr(image, "n_frames", 1) == 1 and image.getexif().get(_TURNED, 1) == 1


def _encoded(image: Picture, kind: str, **how: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def _in_colour(image: Picture) -> Picture:
    """In RGB; of 16 bits a channel the upper eight, where Pillow would cut every value off at 255."""
    if _is_deep(image):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    return image.convert("RGB")


def _is_deep(image: Picture) -> bool:
    return image.mode.startswith("I;16") or image.mode == "I"


def _inside(image: str, home: str) -> str:
    """Where a path leads, links followed; raises `RowFault` for an address, and for what is not in the folder."""
    if _URL.match(image):
        raise RowFault("E804", f'images are not fetched from "{shown(image)}"; download it, and give its path')
    try:
        path = os.path.realpath(os.path.join(home, image))
    except ValueError:  # NUL, or half of a surrogate pair
        path = "/"
    if not Path(path).is_relative_to(home):
        raise RowFault("E803", f'the image "{shown(image)}" lies outside the data set\'s folder; move it inside')
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """What Pillow finds odd about an image is not told, and what is too large to be decoded is refused."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _trouble(image: ImageFile) -> tuple[str, str] | None:
    if image.width * image.height > MAX_PIXELS:
        return _TOO_LARGE
    image.draft("L", (1, 1))  # a JPEG is read to its end, but decoded at an eighth of its size
    image.load()  # of several frames the first
    return None


def _embedded(image: str) -> bytes:
    head = _DATA.match(image)
    try:
        if head is None:
            raise ValueError("not base64")
        return base64.b64decode(image[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise RowFault("E205", f'an image in the row itself is not valid base64: "{shown(image[:40])}"') from None


def _raise(trouble: tuple[str, str] | None) -> None:
    if trouble is not None:
        raise RowFault(*trouble)
