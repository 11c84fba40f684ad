"""What is a scorer? A step from records to scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesift.records import Failure, Record, Score
from tunesift.settings import Settings


class Scorer(Settings):
    """A step from records to scores; derive a frozen dataclass with settings and a `__call__`."""

    kind: str
    returns: ClassVar[type[Score]] = Score
    label: ClassVar[str] = "score"
    """What the number is called in reasons and reports."""
    forwards: ClassVar[int] = 2
    """Forward passes of the scorer's student, or of each of its models, per record."""

    def __call__(self, chunk: Sequence[Record], /) -> Sequence[Score | Failure]:
        """One score per record, in order."""
        raise TypeError(f"{type(self).__name__} is a scorer without a __call__")
