"""What is debated? Which topics are refused, and which arguments either side of the others has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunesift.datasets import Dataset
from tunesift.errors import shown
from tunesift.language import switch
from tunesift.methods.controllability_figures import words
from tunesift.methods.debatune_reading import distinct, is_wh_question, plain, read_arguments
from tunesift.methods.debatune_steps import Argument, Asked, Side, Speak
from tunesift.models.base import Completion
from tunesift.records import Failure, Record
from tunesift.running.run import Run


@dataclass(frozen=True, slots=True)
class Position:
    """One side of a topic, and the arguments that its row brings along for it."""

    id: str
    topic: str
    side: Side
    given: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposed:
    """What one side has to say."""

    arguments: tuple[Argument, ...]
    why_fewer: str
    """Why they are fewer than wanted; empty where they are not."""


def left_out(data: Dataset[Record], deny: Sequence[str], held_out: Sequence[str]) -> dict[str, str]:
    """Why topics are not debated, by id; those that are do not appear."""
    apart = set(map(plain, held_out))
    seen: dict[str, Record] = {}
    reasons = {}
    for record in data:
        topic = topic_of(record)
        if reason := _unfit(record, deny) or ("held out: kept for an evaluation" if plain(topic) in apart else ""):
            reasons[record.id] = reason
        elif (earlier := seen.setdefault(plain(topic) or topic, record)).id != record.id:
            but = "" if topic_of(earlier) == topic else " but for case and punctuation"
            reasons[record.id] = f"duplicate topic: says what {shown(earlier.id)} says{but}"
    return reasons


def _unfit(record: Record, deny: Sequence[str]) -> str:
    topic = topic_of(record)
    if len(record.prompt) != 1 or record.prompt[0].images:
        return "no topic: has several turns or an image; write one text"
    if is_wh_question(topic):
        return "wh-question: has no affirmative side; write it as a claim that one can be for or against"
    word = denied(topic, deny)
    return f'denied: the topic holds "{shown(word)}"' if word else ""


def denied(text: str, deny: Sequence[str]) -> str:
    """The first of the words or phrases that a text holds, as whole words; empty for none."""
    within = f" {' '.join(words(text))} "
    return next((word for word in deny if f" {' '.join(words(word))} " in within), "")


def topic_of(record: Record) -> str:
    """The text of a topic."""
    return record.prompt[-1].text.strip()


def positions(topics: Iterable[Record], sides: Sequence[Side]) -> list[Position]:
    """The sides of topics."""
    return [Position(f"{t.id}~{side}", topic_of(t), side, _given(t, side)) for t in topics for side in sides]


def proposed(
    run: Run,
    tries: Sequence[Speak],
    sides: Sequence[Position],
    ask: Callable[[Position, Sequence[str]], Asked],
    most: int,
) -> dict[str, Proposed]:
    """The arguments of each side, by its id: those it brings along, or those that are named, in two tries.

    A call that failed is not repeated: the model itself tried as often as it makes sense.
    """
    found = {side.id: distinct(side.given) for side in sides}
    wrong: dict[str, Failure] = {}
    open_ = [side for side in sides if not side.given]
    for stage, speak in zip(("arguments", "arguments-again"), tries, strict=True):
        if not open_:
            break
        told = run.map(stage, speak, [ask(side, found[side.id]) for side in open_])
        for side in open_:
            more = _named(told[side.id], side, len(found[side.id]) + 1)
            if isinstance(more, Failure):
                wrong[side.id] = more
            else:
                found[side.id] = distinct([*found[side.id], *more])
        good = told.good()
        open_ = [side for side in open_ if len(found[side.id]) < most and side.id in good]
    return {side.id: _proposed(side, found[side.id][:most], wrong.get(side.id), most) for side in sides}


def _proposed(side: Position, texts: Sequence[str], wrong: Failure | None, most: int) -> Proposed:
    arguments = tuple(Argument(f"{side.id}-{n}", side.topic, side.side, text) for n, text in enumerate(texts, start=1))
    why = f"{wrong.kind}, {wrong.message}" if wrong else "no more were given" if side.given else "no more were named"
    return Proposed(arguments, why if len(texts) < most else "")


def _named(said: Completion | Failure, side: Position, first: int) -> list[str] | Failure:
    items = said if isinstance(said, Failure) else read_arguments(said, first)
    if isinstance(items, Failure):
        return items
    changed = switch(side.topic, "\n".join(items))
    return Failure("unreadable", f"language ({changed})") if changed else items


def _given(record: Record, side: Side) -> tuple[str, ...]:
    """Arguments that a row has for a side: a list in a field named after it, or in `arguments` in that."""
    for name in (side, side.capitalize()):
        field = record.extra.get(name)
        texts = field.get("arguments") if isinstance(field, Mapping) else field
        if isinstance(texts, list):
            return tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())
    return ()
