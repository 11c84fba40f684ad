"""What the door takes and what it gives: steps and their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from tunesift.datasets import Dataset
from tunesift.records import Failure

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Made = TypeVar("Made")
Todo = TypeVar("Todo")


class HasId(Protocol):
    """Whatever goes through the door has an id of its own."""

    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=HasId)


@runtime_checkable
class Step(Protocol[In, Out]):
    """A function with settings: a chunk of items in, one outcome per item out, in order.

    A step is a frozen dataclass. It returns `Failure` for what is the item's fault and raises for what is not.
    """

    returns: ClassVar[type[Any]]
    """Type of a good outcome, so that a journal line can be read back."""

    def __call__(self, chunk: Sequence[In], /) -> Sequence[Out | Failure]: ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model that was trained: where it is, and what it was made of."""

    path: Path
    """Its folder; a run folder may be moved, and its checkpoints with it."""
    digest: str
    """Of the settings and of the data it was trained on, by which it is known."""


class Watch(Protocol):
    """Who looks on while a model is trained."""

    @property
    def stopped(self) -> bool:
        """Whether the training is to save what it has, and end."""
        ...

    def at(self, step: int, of: int) -> None:
        """Hear how many of all steps are done."""
        ...


class Tuner(Protocol):
    """Settings that train a model on data into a folder, and go on where an earlier life of the run left off."""

    def __call__(self, data: Dataset[Any], into: Path, watch: Watch, /) -> None:
        """Leave a sealed folder `model` in `into`; nothing of the kind where the watch says to stop."""
        ...


class Work(Protocol[Todo]):
    """What an executor is to do."""

    def take(self, most: int) -> list[tuple[int, Sequence[Todo]]]:
        """The next chunks with their numbers, at most so many, written down as begun.

        Empty while what is in flight must end first, and when nothing is left.
        """
        ...


class Outcomes(Generic[Made]):
    """Results of one call of map, by item id, in the order the items were given; read lazily."""

    def __init__(
        self, rows: Mapping[str, int], failed: Mapping[str, Failure], read: Callable[[int], Made | Failure]
    ) -> None:
        self._rows, self._failed, self._read = rows, failed, read

    def __getitem__(self, id: str) -> Made | Failure:
        """The outcome of one item; raises `KeyError` for an id that this call was not given."""
        return self._read(self._rows[id])

    def __contains__(self, id: object) -> bool:
        return id in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def good(self) -> Mapping[str, Made]:
        """What was made, without the failures."""
        return _Good(self._rows, self._failed, self._read)

    def failures(self) -> Mapping[str, Failure]:
        """What could not be done, and why."""
        return self._failed


class _Good(Mapping[str, Made]):
    def __init__(
        self, rows: Mapping[str, int], failed: Mapping[str, Failure], read: Callable[[int], Made | Failure]
    ) -> None:
        self._rows, self._failed, self._read = rows, failed, read

    def __getitem__(self, id: str) -> Made:
        made = self._read(self._rows[id])
        if isinstance(made, Failure):
            raise KeyError(id)
        return made

    def __contains__(self, id: object) -> bool:
        return id in self._rows and id not in self._failed

    def __iter__(self) -> Iterator[str]:
        return (id for id in self._rows if id not in self._failed)

    def __len__(self) -> int:
        return len(self._rows) - len(self._failed)
