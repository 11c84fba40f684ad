"""What comes out of the door is what went in, whatever it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from harness import door as shared
from harness.door import Life, Measure, all_kept, record
from tunesift import (
    Dataset,
    Failure,
    Local,
    Message,
    Record,
    RunError,
    Score,
    Settings,
)

fresh, life = shared.fresh, shared.life


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with parts of its own."""

    name: str
    ranks: tuple[int, ...]
    by: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    margin: float | None = None


@dataclass(frozen=True, kw_only=True)
class Give(Settings):
    """Gives whatever it is told to, by id."""

    what: str
    returns: ClassVar[type[Any]]

    def __call__(self, chunk: Sequence[Record], /) -> list[Any]:
        return [GIVEN[self.what][record.id] for record in chunk]


@dataclass(frozen=True, kw_only=True)
class GiveScores(Give):
    returns: ClassVar[type[Any]] = Score


@dataclass(frozen=True, kw_only=True)
class GiveVectors(Give):
    returns: ClassVar[type[Any]] = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class GiveVerdicts(Give):
    returns: ClassVar[type[Any]] = Verdict


@dataclass(frozen=True, kw_only=True)
class GiveRecords(Give):
    returns: ClassVar[type[Any]] = Record


NASTY = 'ü € 𝄞 \u2028 \0 \x1b[31m "q" \\ null NaN </script> {}'
GIVEN: dict[str, dict[str, Any]] = {
    "scores": {
        "a": Score(0.1 + 0.2, {"conditioned": 5e-324, "direct": 1.7976931348623157e308, "tokens": 12}, NASTY),
        "b": Score(None, note="null"),
        "c": Score(-0.0, {}),
        "d": Failure("unreadable", NASTY),
        "e": Failure("too-long", ""),
    },
    "vectors": {"a": (0.1, 1 / 3, -1e-9), "b": (), "c": Failure("empty", "no text"), "d": (1.0,)},
    "verdicts": {
        "a": Verdict("a", (3, 1, 2), {"x": (0.5, 0.25)}, 0.1),
        "b": Verdict(NASTY, ()),
        "c": Failure("refused", "no"),
    },
    "records": {
        "a": Record(
            "a~response", (Message("user", NASTY), Message("assistant", "", ("a.png",))), {"n": [1, {"z": None}]}
        ),
        "b": Record("b", ()),
    },
}


@pytest.mark.parametrize("step", [GiveScores(what="scores"), GiveVectors(what="vectors"),
                                  GiveVerdicts(what="verdicts"), GiveRecords(what="records")])  # fmt: skip
@pytest.mark.parametrize("sealed", [True, False])
def test_outcomes_read_back_equal_to_what_was_made(life: Life, step: Give, sealed: bool) -> None:
    given = GIVEN[step.what]
    items = [record(id) for id in given]
    with life() as run:
        found = run.map(step.what, step, items)
        assert {id: found[id] for id in found} == given
        if sealed:
            run.finish(Dataset.of(items), all_kept(items))
    with life() as run:
        found = run.map(step.what, step, items)
        assert {id: found[id] for id in found} == given
        assert [id for id in given if id in found.good()] == list(found.good())
        assert dict(found.good()) == {id: made for id, made in given.items() if not isinstance(made, Failure)}
        assert found.failures() == {id: made for id, made in given.items() if isinstance(made, Failure)}
        assert [type(found[id]) for id in found] == [type(made) for made in given.values()]
        assert (len(found), len(found.good())) == (len(given), len(given) - len(found.failures()))


def test_a_number_that_is_not_finite_is_a_failure_wherever_it_stands(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {
        "scores": {"a": Score(math.nan), "b": Score(math.inf), "c": Score(0.5, {"loss": math.nan}), "d": Score(1.0)},
        "vectors": {"a": (0.5, math.nan), "b": (-math.inf,), "c": (1.0,)},
        "verdicts": {"a": Verdict("a", (), margin=math.nan), "b": Verdict("b", (), {"x": (math.inf,)})},
    }
    for step in (GiveScores(what="scores"), GiveVectors(what="vectors"), GiveVerdicts(what="verdicts")):
        monkeypatch.setitem(GIVEN, step.what, bad[step.what])
        with life() as run:
            found = run.map(step.what, step, [record(id) for id in bad[step.what]])
            sound = {"scores": ["d"], "vectors": ["c"], "verdicts": []}[step.what]
            assert list(found.good()) == sound
            assert {f.kind for f in found.failures().values()} == {"not-finite"}
            assert {id: found[id] for id in found.failures()} == found.failures()


@pytest.mark.parametrize("outcome", [None, "0.5", {"value": 0.5}, Score("high"), (0.5,), Score(0.5, note="\ud800")])  # type: ignore[arg-type]
def test_an_outcome_that_could_not_be_read_back_is_refused_and_its_step_named(
    life: Life, monkeypatch: pytest.MonkeyPatch, outcome: object
) -> None:
    monkeypatch.setitem(GIVEN, "scores", {"a": Score(1.0), "b": outcome})
    step = GiveScores(what="scores")
    with (
        life(executor=Local(chunk=1)) as run,
        pytest.raises(
            RunError, match=r'^stage "scores": GiveScores gave an outcome .* \((Input should|Pydantic|Error ser)'
        ),
    ):
        run.map("scores", step, [record("a"), record("b")])
    monkeypatch.setitem(GIVEN, "scores", {"b": Score(2.0)})
    with life() as run:  # what was sound before it is there, and the rest can be done once the step is right
        assert dict(run.map("scores", step, [record("a"), record("b")]).good()) == {"a": Score(1.0), "b": Score(2.0)}


def test_a_failure_that_quotes_half_a_surrogate_pair_does_not_stop_a_run(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GIVEN, "scores", {"a": Failure("unreadable", "no number in '\ud83d'")})
    with life() as run:
        found = run.map("scores", GiveScores(what="scores"), [record("a")])
        assert found.failures() == {"a": Failure("unreadable", "no number in '?'")} == {"a": found["a"]}


def test_a_stage_without_items_has_no_outcomes(life: Life) -> None:
    with life() as run:
        found = run.map("measure", Measure(), [])
        assert (len(found), list(found), dict(found.good()), found.failures()) == (0, [], {}, {})
        run.finish(Dataset.of([]), [])


def test_outcomes_know_which_items_were_asked_for_and_which_were_good(life: Life) -> None:
    with life() as run:
        found = run.map("measure", Measure(), [record("good"), record("bad", "refuse")])
        assert ("good" in found, "bad" in found, "other" in found) == (True, True, False)
        good = found.good()
        assert ("good" in good, "bad" in good, "other" in good, len(good)) == (True, False, False, 1)
        with pytest.raises(KeyError, match=r"^'bad'$"):
            good["bad"]
