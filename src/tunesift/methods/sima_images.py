"""Which images can the page `sima` ask about, what is each known by, and how many may be broken?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tunesift.datasets import Source
from tunesift.errors import TooManyFailures, shown
from tunesift.images import bytes_digest, picture
from tunesift.records import Failure, Record, RowFault, Score
from tunesift.settings import INCIDENTAL, Settings

SEEN = "tunesift.images"
"""In a record's `extra`, while it is asked about: the digests of its images' bytes."""
_FAULTS = ("E205", "E405", "E407", "E803", "E804")
"""What is wrong with a row whose image cannot be used."""


def sighted(records: Iterable[Record], folder: Path) -> Iterator[Record]:
    """The records with the digests of their images, so that what is asked about another image is another item."""
    known: dict[str, str] = {}
    for record in records:
        images = [image for message in record.prompt for image in message.images]
        for image in images:
            if image not in known and not image.startswith("data:"):
                known[image] = bytes_digest(image, folder)
        yield replace(record, extra={**record.extra, SEEN: [known.get(image, "") for image in images]})


def seen_in(record: Record) -> tuple[str, ...]:
    """The digests of a record's images, as `sighted` found them."""
    found = record.extra.get(SEEN)
    return tuple(found) if isinstance(found, list | tuple) else ()


@dataclass(frozen=True, kw_only=True)
class LookAtImages(Settings):
    """Can every image of a record be used? Each is opened as the model will see it."""

    kind: Literal["look-at-images"] = "look-at-images"
    images: Annotated[Path, INCIDENTAL]
    """The folder that they lie in."""

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        """How many images a record has; a Failure for one that cannot be used."""
        return [self._looked(record.prompt[-1].images) for record in chunk]

    def _looked(self, images: Sequence[str]) -> Score | Failure:
        try:
            for image in images:
                picture(image, self.images)
        except RowFault as fault:
            return Failure("unreadable", f"{fault.code} {fault.message}")
        return Score(float(len(images)))


def check_broken(source: Source | None, failed: Mapping[str, Failure], asked: int, most: float) -> None:
    """Raise `TooManyFailures` where more than the share `most` of the rows with an image have one that cannot be used:
    found broken while they were read, or when all were looked at; one row always may."""
    read = [row for row in (source.broken if source else ()) if row.code in _FAULTS]
    count, rows = len(read) + len(failed), len(read) + asked
    allowed = max(1, int(most * rows))
    if count <= allowed:
        return
    found = [f"{row.place}: {row.code} {row.message}" for row in read[:1]]
    found += [f"{shown(id)}: {why.message}" for id, why in failed.items()]
    said = f"{count} of {rows} rows with an image cannot be used, more than {allowed} (first, {found[0]})"
    raise TooManyFailures(
        f"{said}; put the images right and start again with --retry-failed any, or raise max_failures."
    )
