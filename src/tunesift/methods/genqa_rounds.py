"""Which rows does GenQA ask for next, and when does it stop? Counted from outcomes: a resumed run counts the same."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from tunesift.methods.genqa_asking import Picked, failed
from tunesift.methods.genqa_checks import Rejected, Written
from tunesift.methods.genqa_draws import Draw
from tunesift.methods.genqa_prompts import SplitName
from tunesift.methods.genqa_reading import read_row
from tunesift.methods.genqa_sifting import Sieve
from tunesift.methods.repeating import Repeating
from tunesift.models.base import Completion
from tunesift.records import Decision, Failure, Record
from tunesift.running.step import Outcomes

FIRST_ROUND, GROWTH = 64, 4
"""Draws of the first round, and how many times larger each round is than the one before, up to `Limits.round`: a model
that repeats itself is found by few calls, and a good one waits at the end of few rounds. Our choice."""
REPEATS = ("duplicate", "near_duplicate")
TAKEN_OUT = (*REPEATS, "contaminated")
"""Reasons for which a row is not tried again: there is nothing wrong with the reply."""


@dataclass(frozen=True)
class Limits:
    """When it is enough."""

    draws: int
    """Draws of all rows, further tries included."""
    tries: int
    """Further tries of one row."""
    round: int
    """Most draws of one round."""
    duplicates: float
    """Fraction of what could be read."""


@dataclass
class Rounds:
    """What is still to be made, split by split."""

    quotas: Mapping[SplitName, int]
    limits: Limits
    made: Counter[str] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    """Draws by split, further tries included."""
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Draws that came to nothing, by split and reason."""
    rows: list[dict[str, object]] = field(default_factory=list)
    """One for each round, for the report."""
    _begun: Counter[str] = field(default_factory=Counter)
    _again: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    _now: Counter[str] = field(default_factory=Counter)
    _repeating: Repeating = field(init=False)
    _repeats: str = ""

    def __post_init__(self) -> None:
        self._repeating = Repeating("rows", self.limits.duplicates)

    def next(self) -> list[tuple[SplitName, int, int]]:
        """Split, number and try of the rows of the next round, never more than are missing; none at the end."""
        if self.short or not self.missing:
            return []
        most = min(round_size(len(self.rows), self.limits.round), self.limits.draws - self.drawn.total())
        wanted: list[tuple[float, int, SplitName, int, int]] = []
        for rank, (split, quota) in enumerate(self.quotas.items()):
            missing = quota - self.made[split]
            again = sorted(self._again.get(split, []))[:missing]
            fresh = range(self._begun[split], self._begun[split] + missing - len(again))
            turns = islice(chain(again, ((idx, 0) for idx in fresh)), most)
            wanted += [((n + 1) / missing, rank, split, idx, attempt) for n, (idx, attempt) in enumerate(turns)]
        taken = [(split, idx, attempt) for _, _, split, idx, attempt in sorted(wanted)[:most]]
        for split, idx, attempt in taken:
            self.drawn[split] += 1
            if attempt:
                self._again[split].remove((idx, attempt))
            else:
                self._begun[split] += 1
        self._now = Counter(draws=len(taken), further_tries=sum(attempt > 0 for _, _, attempt in taken))
        return taken

    def keep(self, draw: Draw) -> None:
        """A draw became a row."""
        self.made[draw.split] += 1
        self._now.update(("made", "read"))

    def lose(self, draw: Draw, why: Rejected) -> None:
        """A draw came to nothing; tried again where another draw may do better."""
        self.lost[draw.split, why.reason] += 1
        self._now.update(["read"] * (why.reason in TAKEN_OUT) + ["duplicates"] * (why.reason in REPEATS))
        if why.reason not in TAKEN_OUT and draw.attempt < self.limits.tries:
            self._again.setdefault(draw.split, []).append((draw.idx, draw.attempt + 1))

    def close(self) -> None:
        """The round is over: what it says about repeating."""
        names = ("draws", "further_tries", "read", "duplicates", "made")
        self.rows.append({"round": len(self.rows) + 1, **{name: self._now[name] for name in names}})
        self._repeats = self._repeating.close(self._now["read"], self._now["duplicates"])

    @property
    def missing(self) -> int:
        """Rows that are still to be made."""
        return sum(self.quotas.values()) - self.made.total()

    @property
    def short(self) -> str:
        """Why no more is asked for though rows are missing; empty while it is, and when none are."""
        if not self.missing:
            return ""
        if self._repeats:
            return self._repeats
        if self.drawn.total() < self.limits.draws:
            return ""
        common = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons().most_common(3))
        return (f"{self.drawn.total():,} draws are made, the most that draws_per_row allows; of those that came to "
                f"nothing: {common}")  # fmt: skip

    def reasons(self) -> Counter[str]:
        """How many draws came to nothing, by reason."""
        found: Counter[str] = Counter()
        for (_, reason), count in self.lost.items():
            found[reason] += count
        return found

    def tables(self) -> dict[str, Sequence[Mapping[str, object]]]:
        """What the report shows of it."""
        splits = [
            {
                "split": s,
                "asked_for": quota,
                "made": self.made[s],
                "draws": self.drawn[s],
                "draws_per_row": round(self.drawn[s] / self.made[s], 3) if self.made[s] else None,
            }
            for s, quota in self.quotas.items()
        ]
        rejected = [{"split": s, "reason": r, "draws": n} for (s, r), n in self.lost.most_common()]
        stopped = [{"missing": self.missing, "why": self.short}] if self.short else []
        return {"splits": splits, "rounds": self.rows, "came-to-nothing": rejected, "stopped-early": stopped}


def round_size(number: int, most: int) -> int:
    """Most draws of a round by its number, from 0: 64, 256, 1,024 and so on, and never more than `most`."""
    return min(most, FIRST_ROUND * int(GROWTH**number))


def most_draws(count: int, per_row: float) -> int:
    """Most draws for so many rows."""
    return math.ceil(count * per_row)


@dataclass
class Made:
    """Turns replies into records, and remembers of each only how it was made."""

    sieve: Sieve
    rounds: Rounds
    lost: list[dict[str, object]] = field(default_factory=list)
    """Draws that came to nothing, with their reasons, for the report."""
    _hows: dict[str, int] = field(default_factory=dict)
    _which: array[int] = field(default_factory=lambda: array("H"))

    def of(
        self, draws: Sequence[Draw], picked: Sequence[Picked | Rejected], told: Outcomes[Completion]
    ) -> Iterator[Record]:
        """The records of a round, in the order of its draws; each is counted as it comes."""
        for draw, pick in zip(draws, picked, strict=True):
            row = pick if isinstance(pick, Rejected) else self._row(draw, pick, told[draw.id])
            if isinstance(row, Rejected):
                self.rounds.lose(draw, row)
                self.lost.append({"id": draw.id, "reason": row.reason, "detail": row.detail})
                continue
            self.rounds.keep(draw)
            how = f"{draw.split}, {'empty-prompt' if draw.split == 'general' else draw.variant}"
            self._which.append(self._hows.setdefault(how, len(self._hows)))
            yield _record(draw, row)

    def decide(self, place: int, id: str) -> Decision:
        """How a record was made, which is all the reason there is."""
        return Decision(id, "create", list(self._hows)[self._which[place]])

    def _row(self, draw: Draw, pick: Picked, said: Completion | Failure) -> Written | Rejected:
        row = failed(said) if isinstance(said, Failure) else read_row(said, pick.wanted)
        return row if isinstance(row, Rejected) else self.sieve.holds_back(row, draw.split) or row


def _record(draw: Draw, row: Written) -> Record:
    extra: dict[str, object] = {
        "split": draw.split, "idx": draw.idx, "attempt": draw.attempt,
        "variant": "empty-prompt" if draw.split == "general" else draw.variant,
        "topic": row.topic, "subtopic": row.subtopic, "n1": row.n1, "n2": row.n2, "booster": draw.booster,
        "flags": ", ".join(row.flags),
    }  # fmt: skip
    return Record(draw.id.partition("~")[0], row.messages, extra)
