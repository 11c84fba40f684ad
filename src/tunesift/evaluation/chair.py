"""How often do captions name what is not in the image? CHAIR (Rohrbach et al., arXiv:1809.02156) over lists of objects.

Which objects a caption names, and which an image shows, the user says: the benchmark's lists, and its words that mean
one object, are not ours. Captions that grow shorter name less that is wrong; look at `words` beside the shares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tunesift.errors import DataError


@dataclass(frozen=True, slots=True)
class Caption:
    """What a model said of an image, and what there is to see."""

    text: str
    mentions: Sequence[str]
    """Objects that it names, as often as it names them."""
    truths: Collection[str]
    """Objects that the image shows, by the same names."""

    @property
    def hallucinated(self) -> int:
        """Mentions of objects that are not there."""
        return sum(name not in self.truths for name in self.mentions)

    @property
    def hallucinated_share(self) -> float:
        """The same as a share of all mentions, 0 to 1; of none 0."""
        return self.hallucinated / len(self.mentions) if self.mentions else 0.0


@dataclass(frozen=True, slots=True)
class Chair:
    """What many captions come to."""

    of_captions: float
    """CHAIR_s: captions with an object that is not there, as a share of all, 0 to 1."""
    of_mentions: float
    """CHAIR_i: mentions of objects that are not there, as a share of all mentions, 0 to 1; of none 0."""
    words: float
    """Words of a caption, on average."""
    captions: int
    """Those that count."""
    empty: int
    """Captions without a word, which do not count."""


def chair(captions: Iterable[Caption]) -> Chair:
    """Both shares over all captions that say something; raises `DataError` where there are none."""
    given = list(captions)
    said = [caption for caption in given if caption.text.strip()]
    if not said:
        raise DataError(f"{len(given)} captions say nothing; CHAIR needs one that does.")
    mentions, wrong = sum(len(c.mentions) for c in said), [c.hallucinated for c in said]
    return Chair(
        of_captions=sum(count > 0 for count in wrong) / len(said),
        of_mentions=sum(wrong) / mentions if mentions else 0.0,
        words=sum(len(c.text.split()) for c in said) / len(said),
        captions=len(said), empty=len(given) - len(said),
    )  # fmt: skip
