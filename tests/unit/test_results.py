"""What a page hands back: which records a selection keeps, and what a page reads."""

from __future__ import annotations

import pytest

from tunesift import Dataset, Decision, Message, Record, RunError, Select
from tunesift.running.result import Planned, kept, planned, reads

DATA = Dataset.of([Record(id, (Message("user", "Say it."), Message("assistant", "It."))) for id in "abc"])
DECISIONS = [
    Decision("a", "keep", "kept: all"),
    Decision("b", "drop", "dropped: it"),
    Decision("c", "keep", "kept: all"),
]


def test_the_records_that_are_kept_stay_in_the_order_of_the_data() -> None:
    assert list(kept(DATA, DECISIONS).ids()) == ["a", "c"]


@pytest.mark.parametrize(
    "decisions",
    [DECISIONS[:2], [*DECISIONS, Decision("d", "keep", "kept: all")], [DECISIONS[0], DECISIONS[2], DECISIONS[1]], []],
    ids=["too few", "too many", "another order", "none"],
)
def test_a_selector_that_does_not_decide_on_every_record_in_order_is_named_as_the_fault(
    decisions: list[Decision],
) -> None:
    with pytest.raises(RunError, match="a selector must decide on every record in the order of the data"):
        kept(DATA, decisions)


def test_a_page_reads_records_unless_it_says_otherwise() -> None:
    class Prompts(Select):
        reads = "prompts"

    assert (reads(Select()), reads(Prompts())) == ("records", "prompts")


def test_a_plan_is_made_of_how_many_records_there_are_or_of_which_where_the_page_looks_at_them() -> None:
    class Looks(Select):
        def plan_for(self, data: Dataset[Record]) -> list[Planned]:
            return [Planned("rate", sum(id != "b" for id in data.ids()), 1, "m")]

    assert planned(Select(), DATA) == Select().plan(3) != Select().plan(2)
    assert planned(Looks(), DATA) == [Planned("rate", 2, 1, "m")]
