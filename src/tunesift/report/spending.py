"""What did each model cost, and who asked it? From the run's ledger and its recipe, whatever the method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesift.running.ledger import read_spent

MODEL = "model"
"""Column of a method's table by which its rows get their cost."""


@dataclass(frozen=True, slots=True)
class Paid:
    """What one endpoint's model was asked and paid, over all lives of the run."""

    model: str
    asked_as: tuple[str, ...]
    """Places in the recipe that name it: `judge`, `agents.gpt`."""
    calls: int
    prompt_tokens: int
    answer_tokens: int
    unknown_tokens: int
    """Most tokens that may have been billed besides."""
    cost: float
    """In the currency of the prices; 0 where there are none."""
    unknown_cost: float
    """Most that may have been billed besides."""

    def row(self, money: bool) -> dict[str, object]:
        """A row of the table of endpoints, with what it cost where prices are known."""
        row: dict[str, object] = {
            "model": self.model, "asked_as": ", ".join(self.asked_as), "calls": self.calls,
            "prompt_tokens": self.prompt_tokens, "answer_tokens": self.answer_tokens,
            "at_most_more": self.unknown_tokens,
        }  # fmt: skip
        return {**row, "cost": self.cost, "cost_at_most": self.cost + self.unknown_cost} if money else row


def spent_on(folder: Path, method: Mapping[str, Any]) -> list[Paid]:  # Any: JSON
    """Every model that was asked, and where the method's settings name it; none where no endpoint was."""
    places = list(_endpoints(method, ()))
    return [
        Paid(s.model, tuple(".".join(place) for place, model in places if model == s.model), s.calls, s.exact_prompt,
             s.exact_completion, s.unknown_tokens, s.exact_micros / 1e6, s.unknown_micros / 1e6)
        for s in read_spent(folder)
    ]  # fmt: skip


def priced(rows: Sequence[Mapping[str, object]], paid: Sequence[Paid]) -> list[dict[str, object]]:
    """A table's rows, each with what its model cost, where it names one that did.

    What a model cost that is asked in several places cannot be told apart, and is said to be for all of them.
    """
    of = {one.model: one for one in paid if one.cost or one.unknown_cost}
    if not any(row.get(MODEL) in of for row in rows):
        return [dict(row) for row in rows]
    return [{**row, "cost": _cost(of.get(str(row.get(MODEL))))} for row in rows]


def _cost(paid: Paid | None) -> str | float | None:
    if paid is None or len(paid.asked_as) == 1:
        return None if paid is None else paid.cost
    return f"{paid.cost:.4f} for {', '.join(paid.asked_as)}"


def _endpoints(value: object, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where settings name an endpoint, and its model; an entry of a list is known by its name, if it has one."""
    if isinstance(value, Mapping):
        if value.get("kind") == "http" and MODEL in value:
            yield (place[:-1] if place[-1:] == (MODEL,) and len(place) > 1 else place), str(value[MODEL])
        else:
            for name, part in value.items():
                yield from _endpoints(part, (*place, str(name)))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            name = part.get("name") if isinstance(part, Mapping) else None
            yield from _endpoints(part, (*place, str(name or number)))
