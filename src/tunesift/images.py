"""Can an image that a row names be used? It lies in the data set's folder, is whole, still, and not too large."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tunesift.errors import shown
from tunesift.notes import NO_IMAGE, UNSEEN
from tunesift.records import RowFault

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 40_000_000
"""Width times height of an image."""
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
            elif _URL.match(image):
                raise RowFault("E804", f'images are not fetched from "{shown(image)}"; download it, and give its path')
            else:
                self._check_file(image)

    def _check_file(self, image: str) -> None:
        path = os.path.realpath(os.path.join(self._home, image)) if "\0" not in image else "/"
        if not Path(path).is_relative_to(self._home):
            raise RowFault("E803", f'the image "{shown(image)}" lies outside the data set\'s folder; move it inside')
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
            return "E407", f"an image cannot be read ({error.strerror}); check its permissions"

    def _look(self, file: IO[bytes]) -> tuple[str, str] | None:
        """Code and reason where the image cannot be used; None where it can."""
        try:
            from PIL import Image
        except ImportError:
            self._notes[UNSEEN] += 1
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                with Image.open(file, formats=_FORMATS) as image:
                    return _trouble(image)
            except (Image.DecompressionBombError, Image.DecompressionBombWarning):
                return _TOO_LARGE
            except _BROKEN:
                return "E407", "an image is cut off, damaged, or of a kind that is not read"


def _trouble(image: ImageFile) -> tuple[str, str] | None:
    if image.width * image.height > MAX_PIXELS:
        return _TOO_LARGE
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return "E407", "an image is animated; give one of its frames"
    image.draft("L", (1, 1))  # a JPEG is read to its end, but decoded at an eighth of its size
    image.load()
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
