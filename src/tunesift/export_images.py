"""How do pairs whose prompts have images go to another trainer? To TRL, as Parquet that holds the images themselves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.errors import RecipeError
from tunesift.export_rows import Target
from tunesift.images import eight_bits, image_bytes, picture
from tunesift.inputs import home_of_input
from tunesift.methods.sima import Sima
from tunesift.models import VisionChatModel
from tunesift.models.http import NOT_GIVEN
from tunesift.models.vision import VisionModel
from tunesift.recipe import recipe_for
from tunesift.records import Message, Preference, RowFault
from tunesift.settings import Json
from tunesift.tuning.vision_dpo import VisionDPO

_GROUP = 64
"""Pairs of one group of a Parquet file: images are large."""
_TEXT: dict[str, Json] = {"dtype": "string", "_type": "Value"}
_TURNS: dict[str, Json] = {"feature": {"role": _TEXT, "content": _TEXT}, "_type": "List"}
_FEATURES: dict[str, Json] = {
    "id": _TEXT, "prompt": _TURNS, "chosen": _TURNS, "rejected": _TURNS,
    "images": {"feature": {"mode": "RGB", "_type": "Image"}, "_type": "List"},
}  # fmt: skip
"""What `datasets` reads the columns as: bytes become images."""
_TURN = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCHEMA = pa.schema(
    [("id", pa.string()), *((name, _TURN) for name in ("prompt", "chosen", "rejected")),
     ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])))],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seeing:
    """The training of a model that reads images, as it is exported."""

    student: VisionModel
    tuner: VisionDPO
    limit: int | None
    """Most tokens of a pair; None for as many as the student reads."""


def seeing(method: Sima, settings: list[str]) -> Seeing:
    """The training that `sima` would do of the pairs that it made, with settings put in by dotted name."""
    whole = recipe_for("sima", None, Path("tuned"), [*_own(method.student, settings), *settings]).method
    assert isinstance(whole, Sima)  # the vetted recipe of that name
    assert whole.tuner is not None  # and it has one, so that its student
    assert isinstance(whole.student, VisionModel)  # is to be tuned
    if whole.student.name == NOT_GIVEN:
        raise RecipeError("student.name: is not given; write student.name=FOLDER, the model that is to be tuned.")
    return Seeing(whole.student, whole.tuner, whole.tuner.max_length)


def _own(student: VisionChatModel, settings: list[str]) -> list[str]:
    """Settings that say which weights a run's student is, and of which type; none where another one is named."""
    if not isinstance(student, VisionModel) or any(text.startswith("student.name=") for text in settings):
        return []
    said = {"name": student.name, "revision": student.revision, "dtype": student.dtype}
    return [f"student.{name}={json.dumps(value)}" for name, value in said.items() if value is not None]


@dataclass(frozen=True, slots=True)
class PictureRows:
    """How pairs with images are written for TRL."""

    home: Path
    """The folder that the images lie in."""

    def refused(self, pair: Preference) -> str:
        """Why a pair is left out; empty where it is written."""
        if pair.chosen.text.strip() == pair.rejected.text.strip():
            return "both answers are the same"
        try:
            for image in _images(pair):
                picture(image, self.home)
        except RowFault as fault:
            return fault.message
        return ""

    def write(self, pairs: Iterable[Preference], path: Path) -> None:
        """Write a Parquet file, some pairs at a time."""
        walked = iter(pairs)
        with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
            while group := [self._row(pair) for pair in itertools.islice(walked, _GROUP)]:
                writer.write_table(pa.Table.from_pylist(group, schema=_SCHEMA))

    def _row(self, pair: Preference) -> dict[str, object]:
        images = [{"bytes": eight_bits(image_bytes(image, self.home)), "path": None} for image in _images(pair)]
        return {"id": pair.id, "prompt": _turns(*pair.prompt), "chosen": _turns(pair.chosen),
                "rejected": _turns(pair.rejected), "images": images}  # fmt: skip


def picture_rows(to: Target, method: Sima, input: Path) -> PictureRows:
    """How the pairs of a run on this input are written; raises `RecipeError` for another trainer than TRL."""
    if to != "trl":
        raise RecipeError(f"--to: pairs with images are written for TRL alone, not for {to}; write --to trl.")
    own = getattr(method.student, "images", None)
    return PictureRows(own if own not in (None, Path()) else home_of_input(input))


def _images(pair: Preference) -> list[str]:
    return [image for message in pair.prompt for image in message.images]


def _turns(*messages: Message) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.text} for m in messages]
