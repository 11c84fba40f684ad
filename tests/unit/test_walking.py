"""Is a resumed stage passed over by the part, and is nobody believed who says something else than before?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tunesift import Dataset, Failure, Local, Message, ModelUnavailable, Record, ResumeError, Run, Settings
from tunesift.running import journal as storage

worked: list[str] = []
deadly: set[str] = set()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART_ROWS", 8)
    worked.clear()
    deadly.clear()


@dataclass(frozen=True, kw_only=True)
class Echo(Settings):
    """What the response says."""

    returns: ClassVar[type[str]] = str

    def __call__(self, chunk: Sequence[Record], /) -> list[str]:
        if deadly & {r.id for r in chunk}:
            raise ModelUnavailable("the model is gone; start it again.")
        worked.extend(r.id for r in chunk)
        return [r.response for r in chunk]


@dataclass(frozen=True, kw_only=True)
class Choosy(Echo):
    """Echoes, and refuses two."""

    returns: ClassVar[type[str]] = str

    def __call__(self, chunk: Sequence[Record], /) -> list[str | Failure]:  # type: ignore[override]
        return [Failure("refused", f"{r.id}: no") if r.id in ("r3", "r28") else r.response for r in chunk]


def data(rows: int = 30, *, changed: int = -1) -> Dataset[Record]:
    return Dataset.of(
        Record(f"r{n}", (Message("user", "say"), Message("assistant", "changed" if n == changed else f"word {n}")))
        for n in range(rows)
    )


def life(folder: Path, given: Dataset[Record], *, stage: str = "echo") -> dict[str, object]:
    worked.clear()
    with Run(folder, Local(chunk=5)) as run:
        found = run.map(stage, Echo(), given)
        return {id: found[id] for id in found}


def died(folder: Path, given: Dataset[Record], at: str) -> None:
    deadly.add(at)
    with pytest.raises(ModelUnavailable):
        life(folder, given)
    deadly.clear()


def test_an_id_that_was_not_asked_for_is_named(tmp_path: Path) -> None:
    with Run(tmp_path / "run", Local()) as run:
        found = run.map("echo", Echo(), data(3))
        for asked in (found, found.good()):
            with pytest.raises(KeyError, match=r"^'who'$"):
                asked["who"]


def test_failures_of_a_resumed_dataset_are_told_with_their_reasons(tmp_path: Path) -> None:
    for _ in range(2):
        with Run(tmp_path / "run", Local(chunk=5)) as run:
            found = run.map("choosy", Choosy(), data())
            refused = {id: Failure("refused", f"{id}: no") for id in ("r3", "r28")}
            assert found.failures() == refused
            assert {id: found[id] for id in refused} == refused
            assert len(found.good()) == 28


def test_a_resumed_dataset_makes_only_the_rows_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died(tmp_path / "run", data(), at="r22")
    made: list[int] = []
    whole = Dataset.__getitem__

    def watched(self: Dataset[Record], index: int) -> object:
        made.append(index)
        return whole(self, index)

    monkeypatch.setattr(Dataset, "__getitem__", watched)
    again = data()
    with Run(tmp_path / "run", Local(chunk=5)) as run:
        run.map("echo", Echo(), again)
    assert made == list(range(20, 30))


def test_what_is_done_before_and_now_is_all_there(tmp_path: Path) -> None:
    died(tmp_path / "run", data(), at="r22")
    assert life(tmp_path / "run", data()) == {f"r{n}": f"word {n}" for n in range(30)}
    assert worked == [f"r{n}" for n in range(20, 30)]


@pytest.mark.parametrize("changed", [0, 9, 19])
def test_a_dataset_that_is_another_one_is_compared_row_by_row_and_refused(tmp_path: Path, changed: int) -> None:
    died(tmp_path / "run", data(), at="r22")
    for _ in range(2):
        with pytest.raises(ResumeError, match=f'the content of the item "r{changed}" is not what it was'):
            life(tmp_path / "run", data(changed=changed))


@dataclass(frozen=True, kw_only=True)
class Behind(Local):
    """Finishes all chunks but the first two."""

    def map(self, step: Any, work: Any) -> Iterator[Any]:  # Any: whatever goes through
        for number, items in work.take(100)[2:]:
            yield [(number, step(items))]
        raise ModelUnavailable("the model is gone; start it again.")


def test_another_content_behind_what_is_to_be_done_is_refused_after_that_is_written_down(tmp_path: Path) -> None:
    with Run(tmp_path / "run", Behind(chunk=5)) as run, pytest.raises(ModelUnavailable):
        run.map("echo", Echo(), data())
    for again in ([f"r{n}" for n in range(10)], []):
        with pytest.raises(ResumeError, match='the content of the item "r29" is not what it was'):
            life(tmp_path / "run", data(changed=29))
        assert worked == again


def test_nobody_is_believed_after_two_said_different_things(tmp_path: Path) -> None:
    died(tmp_path / "run", data(), at="r22")
    died(tmp_path / "run", data(changed=21), at="r26")  # r21 is not done yet, so it may still be anything
    assert "r21" in worked
    with pytest.raises(ResumeError, match='the content of the item "r21" is not what it was'):
        life(tmp_path / "run", data())


def test_batches_of_a_dataset_walk_one_behind_the_other_and_are_resumed(tmp_path: Path) -> None:
    def page() -> list[object]:
        with Run(tmp_path / "run", Local(chunk=5)) as run:
            outcomes = [run.map("echo", Echo(), batch) for batch in data().batches(7)]
            return [found[id] for found in outcomes for id in found]

    deadly.add("r22")
    with pytest.raises(ModelUnavailable):
        page()
    deadly.clear()
    worked.clear()
    assert page() == [f"word {n}" for n in range(30)]
    assert worked == [f"r{n}" for n in range(21, 30)]


def test_a_part_of_a_dataset_asked_for_again_has_the_outcomes_it_had(tmp_path: Path) -> None:
    whole = data()
    with Run(tmp_path / "run", Local(chunk=5)) as run:
        run.map("echo", Echo(), whole)
        worked.clear()
        some = run.map("echo", Echo(), whole[4:9])
        more = run.map("echo", Echo(), [*whole[2:4], Record("new", (Message("user", "a"), Message("assistant", "b")))])
        assert [some[id] for id in some] == [f"word {n}" for n in range(4, 9)]
        assert {id: more[id] for id in more} == {"r2": "word 2", "r3": "word 3", "new": "b"}
        assert worked == ["new"]
        with pytest.raises(KeyError):
            some["r3"]


def test_a_dataset_in_another_order_is_another_dataset() -> None:
    whole = data()
    assert data().digest() == whole.digest()
    digests = {d.digest() for d in (whole, whole[::-1], whole[1:], data(changed=4), data(29))}
    assert len(digests) == 5
    assert [whole[::-1].place(f"r{n}") for n in (0, 29)] == [29, 0]
    assert whole.only({"r3", "r7"}).place("r7") == 1
    assert whole.only({"r3"}).place("r7") is None
