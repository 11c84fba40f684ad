"""What is told of debates: what became of a topic, and why of an argument no statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tunesift.errors import told_count
from tunesift.methods.controllability_figures import words
from tunesift.methods.debatune_proposing import Proposed
from tunesift.methods.debatune_sifting import Duplicate, Made
from tunesift.methods.debatune_steps import SIDES, Argument
from tunesift.records import Failure
from tunesift.running.run import Run


@dataclass(frozen=True)
class Told:
    """What debates came to."""

    wanted: int
    """Arguments wanted for each side."""
    sides: Mapping[str, Proposed]
    """By the id of a side of a topic."""
    made: Made
    left: int
    """Topics that were not begun."""

    def of_topic(self, id: str) -> str:
        """What became of a topic: how many statements, and why not more."""
        own = {side: found for side in SIDES if (found := self.sides.get(f"{id}~{side}"))}
        if not own:
            return f"not begun: {self._ended} before its turn"
        arguments = [argument for found in own.values() for argument in found.arguments]
        count = sum(self._is_made(argument) for argument in arguments)
        why = [
            f"{side} {len(found.arguments)} of {self.wanted} arguments ({found.why_fewer})"
            for side, found in own.items()
            if found.why_fewer
        ]
        why += [f"{a.id.rpartition('~')[2]} {self._became(a)}" for a in arguments if not self._is_made(a)]
        did = (
            ("debated" if self.made.what == "statements" else "proposed")
            if count
            else "no statement"
            if arguments
            else "no arguments"
        )
        return f"{did}: {'; '.join([f'{count} {self.made.what} created', *why])}"

    def short(self, target: int | None) -> str:
        """Why fewer rows were made than asked for; empty where they were not."""
        count = self.made.wanted - self.made.missing
        if target is not None:
            said = [f"{count:,} of {target:,} {self.made.what}"] if count < target else []
        else:
            said = [] if count else [f"no {self.made.what} were made, and the report says why"]
        if self.made.repeats:
            said.append(self.made.repeats)
            said += [f"{told_count(self.left, 'topic')} not begun"] if self.left else []
        return "; ".join(said)

    def tables(self, run: Run) -> None:
        """How many arguments of each side came to what, and how long its statements are; what came to nothing, and why
        a run ended early."""
        found = [argument for side in self.sides.values() for argument in side.arguments]
        of_side = Counter(argument.side for argument in found)
        came = Counter((a.side, self._became(a).partition(" (")[0]) for a in found)
        run.table("arguments", (
            {"side": side, "became": what, "arguments": n, "fraction": n / of_side[side]}
            for (side, what), n in came.most_common()
        ))  # fmt: skip
        for side in SIDES if self.made.what == "statements" else ():
            statements = (self.made.of.get(a.id) for a in found if a.side == side)
            sizes = [len(words(said)) for said in statements if isinstance(said, str)]
            if sizes:
                run.table("lengths", [{"side": side, "statements": len(sizes), "mean_words": fmean(sizes)}])
        lost = list(self._lost(found))
        stopped = [{"topics_not_begun": self.left, "why": self.made.repeats}] if self.made.repeats else []
        for name, rows in (("rounds", self.made.rounds), ("nothing-came-of", lost), ("stopped-early", stopped)):
            if rows:
                run.table(name, rows)

    @property
    def _ended(self) -> str:
        return "the run ended" if self.made.repeats else "the target was reached"

    def _is_made(self, argument: Argument) -> bool:
        return isinstance(self.made.of.get(argument.id), str)

    def _became(self, argument: Argument) -> str:
        said = self.made.of.get(argument.id)
        if said is None:
            return "not debated" if self.made.repeats else "over the target"
        if isinstance(said, Duplicate):
            return f"{said.reason} ({said.detail})"
        return f"{said.kind}, {said.message}" if isinstance(said, Failure) else "created"

    def _lost(self, arguments: Sequence[Argument]) -> Iterator[Mapping[str, object]]:
        for argument in arguments:
            said = self.made.of.get(argument.id)
            if isinstance(said, Duplicate):
                yield {"id": argument.id, "reason": said.reason, "detail": said.detail}
            elif isinstance(said, Failure):
                yield {"id": argument.id, "reason": said.kind, "detail": said.message}
