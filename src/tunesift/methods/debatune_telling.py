"""What is told of debates: what became of a topic, and why of an argument no statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from tunesift.methods.controllability_figures import words
from tunesift.methods.debatune_proposing import Proposed
from tunesift.methods.debatune_steps import SIDES, Argument
from tunesift.records import Failure
from tunesift.running.run import Run


@dataclass(frozen=True)
class Told:
    """What debates came to."""

    make: str
    """What was made: statements or prompts."""
    wanted: int
    """Arguments wanted for each side."""
    sides: Mapping[str, Proposed]
    """By the id of a side of a topic."""
    made: Mapping[str, str | Failure]
    """By the id of an argument, for those that were debated."""

    def of_topic(self, id: str) -> str:
        """What became of a topic: how many statements, and why not more."""
        own = {side: found for side in SIDES if (found := self.sides.get(f"{id}~{side}"))}
        if not own:
            return "not begun: the target was reached before its turn"
        arguments = [argument for found in own.values() for argument in found.arguments]
        count = sum(isinstance(self.made.get(argument.id), str) for argument in arguments)
        why = [
            f"{side} {len(found.arguments)} of {self.wanted} arguments ({found.why_fewer})"
            for side, found in own.items()
            if found.why_fewer
        ]
        why += [f"{a.id.rpartition('~')[2]} {self._became(a)}" for a in arguments if not self._is_made(a)]
        did = (
            ("debated" if self.make == "statements" else "proposed")
            if count
            else "no statement"
            if arguments
            else "no arguments"
        )
        return f"{did}: {'; '.join([f'{count} {self.make} created', *why])}"

    def tables(self, run: Run) -> None:
        """How many arguments of each side came to what, and how long its statements are."""
        found = [argument for side in self.sides.values() for argument in side.arguments]
        came = Counter((a.side, self._became(a).partition(" (")[0]) for a in found)
        counts = [{"side": side, "became": what, "arguments": n} for (side, what), n in came.most_common()]
        run.table("arguments", counts)
        for side in SIDES if self.make == "statements" else ():
            sizes = [len(words(said)) for a in found if a.side == side and isinstance(said := self.made.get(a.id), str)]
            if sizes:
                run.table("lengths", [{"side": side, "statements": len(sizes), "mean_words": fmean(sizes)}])

    def _is_made(self, argument: Argument) -> bool:
        return isinstance(self.made.get(argument.id), str)

    def _became(self, argument: Argument) -> str:
        said = self.made.get(argument.id)
        if said is None:
            return "over the target"
        return f"{said.kind}, {said.message}" if isinstance(said, Failure) else "created"
