"""Which statements of DEBATunE are new, and does the model repeat itself? What says what a row says is no other row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunesift.methods.debatune_reading import plain
from tunesift.methods.debatune_steps import Argument
from tunesift.methods.repeating import Repeating
from tunesift.records import Failure
from tunesift.scoring.duplicates import NearTexts
from tunesift.words import spelled, units

RUN = 3
"""Words of the runs by which two statements are compared."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """What says no more than something else does."""

    reason: str
    """duplicate: nothing differs but case, spaces and punctuation; near_duplicate: few runs of words do."""
    detail: str
    """What it repeats, by its id."""


Outcome = str | Failure | Duplicate
"""Of an argument its statement, or why there is none."""


@dataclass
class Made:
    """What came of arguments so far, and how much of it repeats what there was."""

    what: str
    """What is made: statements or prompts."""
    near: NearTexts | None
    """Compares a statement with those before; None to find equal ones only."""
    most: float
    """Fraction of what is made that may be duplicates."""
    wanted: int
    """Rows to make, or the most that can be made."""
    of: dict[str, Outcome] = field(default_factory=dict)
    """By the id of an argument."""
    rounds: list[dict[str, object]] = field(default_factory=list)
    """One for each round, for the report."""
    repeats: str = ""
    """That the model repeats itself, in words; empty while it does not."""
    _rows: list[str] = field(default_factory=list)
    _first: dict[str, str] = field(default_factory=dict)
    _now: Counter[str] = field(default_factory=Counter)
    _made: int = 0
    _repeating: Repeating = field(init=False)

    def __post_init__(self) -> None:
        self._repeating = Repeating(self.what, self.most)

    @property
    def missing(self) -> int:
        """Rows that are still to be made."""
        return self.wanted - self._made

    def begin(self, arguments: Sequence[Argument]) -> list[Argument]:
        """Those to debate: none that the other side of its topic has, too.

        Equal ones only: an argument and its contrary may differ in a word.
        """
        first: dict[tuple[str, str], str] = {}
        for argument in arguments:
            key = argument.id.rpartition("~")[0], plain(argument.text) or argument.text
            if (earlier := first.setdefault(key, argument.id)) != argument.id:
                self._take(argument.id, Duplicate("duplicate", f"its argument is that of {earlier}"))
        return [argument for argument in arguments if argument.id not in self.of]

    def take(self, arguments: Sequence[Argument], said: Mapping[str, str | Failure]) -> None:
        """What came of debates, in the order of their arguments; a statement that says what a row says is none."""
        for argument in arguments:
            found = said[argument.id]
            repeated = self._repeated(argument.id, found) if isinstance(found, str) and found else None
            self._take(argument.id, repeated or found)

    def close(self, topics: int, last: bool) -> None:
        """The round, in which so many topics were begun, is over: what it says about repeating."""
        names = ("arguments", "read", "duplicates", "made")
        self.rounds.append({"round": len(self.rounds) + 1, "topics": topics, **{n: self._now[n] for n in names}})
        repeats = self._repeating.close(self._now["read"], self._now["duplicates"], last)
        self.repeats = repeats if self.missing else ""
        self._now.clear()

    def _take(self, id: str, found: Outcome) -> None:
        self.of[id] = found
        repeated, made = int(isinstance(found, Duplicate)), int(isinstance(found, str))
        self._now.update(arguments=1, read=repeated + made, duplicates=repeated, made=made)
        self._made += made

    def _repeated(self, id: str, statement: str) -> Duplicate | None:
        """What a statement repeats of the output; None for a new one, which is remembered."""
        key = plain(statement) or statement
        if (row := self._first.get(key)) is not None:
            return Duplicate("duplicate", f"says what {row} says")
        if self.near is not None:
            said = [units(spelled(statement))]
            if (like := next(self.near.likes(said), None)) is not None:
                return Duplicate("near_duplicate", f"Jaccard {like[1]:.4f} with {self._rows[like[0]]}")
            self.near.add(said)
        self._rows.append(id)
        self._first[key] = id
        return None
