"""Which images does a row name? In the parts of a message, or in a column beside the messages."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from tunesift.records import Fields, Message, RowFault

MEDIA_MARK = "<image>"
COLUMNS = ("images", "image")
"""Columns beside the messages that hold their images."""
IMAGE_PARTS = ("image", "image_url")
"""Kinds of parts that are images."""
_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tiff",
    b"MM\0*": "tiff", b"RIFF": "webp",
}  # fmt: skip
"""How the bytes of an image begin, by its kind."""


def image_of(part: Fields, name: str) -> str:
    """The image that a part of a message names; `name` is what messages call the message."""
    if part.get("bytes") is not None:
        return _image(part, name)
    for key in ("path", "image", "url", "image_url"):
        value = part.get(key)
        value = value["url"] if isinstance(value, Mapping) and "url" in value else value
        if value is not None and value != "":
            return _image(value, name)
    raise RowFault("E205", f'"{name}" has an image without a path')


def _image(value: object, name: str) -> str:
    """The path of an image; where a row holds the image itself, as Hugging Face's `{"bytes", "path"}`, a data: URI."""
    whole = value if isinstance(value, Mapping) else {"path": value}
    content, path = whole.get("bytes"), whole.get("path")
    if content is not None:
        return _embedded(content, name)
    if not isinstance(path, str) or not path:
        raise RowFault("E205", f'"{name}" has an image without a path')
    return path


def _embedded(content: object, name: str) -> str:
    """Bytes as a Parquet file holds them, or in base64 as we write them to JSON."""
    try:
        raw = base64.b64decode(content, validate=True) if isinstance(content, str) else content
    except ValueError:
        raw = None
    if not isinstance(raw, bytes):
        raise RowFault("E205", f'"{name}" has an image whose "bytes" are neither bytes nor base64; give a path')
    kind = image_kind(raw)
    if kind is None:
        raise RowFault("E407", f'"{name}" has an image whose bytes are of no kind that is read')
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def image_kind(raw: bytes) -> str | None:
    """What kind of image bytes are, by how they begin; None where it is none that is read."""
    return next((kind for begins, kind in _BEGINNINGS.items() if raw.startswith(begins)), None)


def with_images(messages: tuple[Message, ...], fields: Fields) -> tuple[Message, ...]:
    """Give the images of an `images` or `image` column to the messages that mark a place for them: to the user's, and
    to others only where the user's marks leave some over; where the user marks none, to the user's first message, as
    TRL does. What an answer says is otherwise text."""
    there = [name for name in COLUMNS if fields.get(name) not in (None, [], "")]
    if not there:
        return messages
    if len(there) > 1:
        raise RowFault("E205", '"images" and "image" both hold images; keep one of the two')
    name, given = there[0], fields[there[0]]
    if name == "image" and not isinstance(given, list):
        given = [given]
    if not isinstance(given, list):
        raise RowFault("E205", '"images" must be a list of images')
    left = [_image(image, name) for image in given]
    first = next((n for n, message in enumerate(messages) if message.role == "user"), None)
    marked = sum(m.text.count(MEDIA_MARK) for m in messages if m.role == "user")
    all_take = first is None or 0 < marked < len(left)
    placed = []
    for message in messages:
        count = min(len(left), message.text.count(MEDIA_MARK)) if all_take or message.role == "user" else 0
        placed.append(Message(message.role, message.text, (*message.images, *left[:count])))
        left = left[count:]
    if left and first is not None and not marked:
        placed[first] = Message("user", placed[first].text, (*placed[first].images, *left))
        left = []
    if left:
        raise RowFault("E205", f'"{name}" has {len(left)} more than the conversation has {MEDIA_MARK} marks')
    return tuple(placed)
