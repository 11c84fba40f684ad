"""Does a damaged run's folder become a whole one, and are failures tried again, without paying twice for the rest?"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from tunesift import (
    Dataset,
    Decision,
    Failure,
    Local,
    Message,
    ModelUnavailable,
    Record,
    Run,
    ScriptedModel,
    Settings,
    StorageError,
)  # fmt: skip
from tunesift.inputs import path_as_text
from tunesift.running import journal as storage
from tunesift.running.database import record
from tunesift.running.fsio import digest, read_json, write_json
from tunesift.running.journal import Journal
from tunesift.running.locking import looked_at
from tunesift.running.mending import Finding, Repaired, repair, verify
from tunesift.running.progress import Progress
from tunesift.settings import Json

worked: list[str] = []
ill: set[str] = set()
"""Ids whose first stage fails, as long as they stand here."""

rude: set[str] = set()
"""Ids that fail in another way."""

deadly: set[str] = set()
"""Ids at which the model goes away."""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART_ROWS", 8)
    worked.clear()
    ill.clear()
    rude.clear()
    deadly.clear()


@dataclass(frozen=True, kw_only=True)
class Shout(Settings):
    """What a record's response says, louder; ill ones fail."""

    model: ScriptedModel = ScriptedModel()
    returns: ClassVar[type[str]] = str

    def __call__(self, chunk: Sequence[Record], /) -> list[str | Failure]:
        if deadly & {r.id for r in chunk}:
            raise ModelUnavailable("the model is gone; start it again.")
        worked.extend(r.id for r in chunk)
        return [self._one(r) for r in chunk]

    def _one(self, r: Record) -> str | Failure:
        if r.id in rude:
            return Failure("refused", "no")
        return Failure("unanswered", "nobody was there") if r.id in ill else r.response.upper()


def page(
    folder: Path, rows: int = 30, sick: Sequence[int] = (), stages: tuple[str, str] = ("first", "second")
) -> tuple[list[str], dict[str, str | None]]:
    """Two stages, the second made of what the first gave, then a decision each; who was worked on, and what came."""
    worked.clear()
    ill.update(f"r{n}" for n in sick)
    data = Dataset.of(Record(f"r{n}", (Message("user", "say"), Message("assistant", f"word {n}"))) for n in range(rows))
    with Run(folder, Local(chunk=5), max_failures=1.0) as run:
        first = run.map(stages[0], Shout(), data)
        again = [
            Record(f"{r.id}~", (Message("user", "say"), Message("assistant", said)))
            for r in data if isinstance(said := first[r.id], str)
        ]  # fmt: skip
        second = run.map(stages[1], Shout(), again)
        found = {id: made if isinstance(made := second[id], str) else None for id in second}
        counts = run.finish(data, [Decision(r.id, "keep", "kept: all") for r in data])
        files: dict[str, Json] = {"decisions.parquet": digest(folder / "decisions.parquet")}
        write_json(folder / "run.json", {"format": 2})
        write_json(folder / "result.json", {"counts": dict(counts), "files": files})
    return list(worked), found


def parts(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("stages/*/part-*"))}


def retry(folder: Path, *kinds: str) -> int:
    with Run(folder, Local(), max_failures=1.0) as run:
        return run.retry(kinds)


def test_a_sound_folder_has_nothing_to_find_and_nothing_to_repair(tmp_path: Path) -> None:
    page(tmp_path / "run")
    assert verify(tmp_path / "run") == []
    assert repair(tmp_path / "run") == Repaired([], [])
    assert page(tmp_path / "run")[0] == []


def test_every_flipped_byte_of_a_part_or_manifest_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    sealed = [*folder.glob("stages/*/*"), folder / "run.json", folder / "result.json", folder / "decisions.parquet"]
    draw = random.Random(3)
    for _ in range(60):
        path = draw.choice(sealed)
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :])
        assert any(str(path.name) in f.said for f in verify(folder)), (path, place)
        path.write_bytes(whole)
    assert verify(folder) == []


def test_failures_are_tried_again_and_only_they_and_what_was_made_of_them_are_worked_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _, before = page(folder, sick=(3, 20))
    assert (len(before), page(folder)[0]) == (28, [])  # a failure is final for its run
    ill.clear()
    assert retry(folder, "refused") == 0
    assert page(folder)[0] == []
    assert retry(folder, "unanswered") == 2
    tried, after = page(folder)
    assert sorted(tried) == ["r20", "r20~", "r3", "r3~"]
    assert (len(after), verify(folder)) == (30, [])


def test_a_run_whose_failures_were_tried_again_is_the_run_that_never_failed(tmp_path: Path) -> None:
    page(tmp_path / "a", sick=(0, 9, 29))
    ill.clear()
    retry(tmp_path / "a", "unanswered")
    page(tmp_path / "a")
    page(tmp_path / "b")
    assert parts(tmp_path / "a") == parts(tmp_path / "b")


def test_stages_before_the_one_whose_failures_are_tried_again_are_left_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ill.add("r3~")
    page(folder)
    ill.clear()
    assert retry(folder, "unanswered") == 1
    assert sealed(folder) == {"first": 4, "second": 0}
    assert page(folder)[0] == ["r3~"]


def test_an_end_between_taking_back_and_trying_again_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder, sick=(3,))
    ill.clear()
    retry(folder, "unanswered")
    assert not (folder / "result.json").exists()
    assert retry(folder, "unanswered") == 0  # another life that ends before the page runs
    assert sorted(page(folder)[0]) == ["r3", "r3~"]


def lose_database(folder: Path) -> None:
    (folder / "state.db").unlink()


def spoil_database(folder: Path) -> None:
    path = folder / "state.db"
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))


def cut_part(folder: Path) -> None:
    part = folder / "stages" / "first" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-3])


def flip_part(folder: Path) -> None:
    part = folder / "stages" / "second" / "part-000002.parquet"
    whole = bytearray(part.read_bytes())
    whole[len(whole) // 2] ^= 1
    part.write_bytes(whole)


def lose_part(folder: Path) -> None:
    (folder / "stages" / "second" / "part-000000.parquet").unlink()


def spoil_success(folder: Path) -> None:
    (folder / "stages" / "first" / "_SUCCESS.json").write_text("{}")


def spoil_decisions(folder: Path) -> None:
    (folder / "decisions.parquet").write_bytes(b"PAR1")


def both(folder: Path) -> None:
    spoil_database(folder)
    cut_part(folder)


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lose_database, 0), (spoil_database, 0), (cut_part, 8), (flip_part, 8), (lose_part, 8), (spoil_success, 0),
        (spoil_decisions, 0), (both, 8),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_repaired_to_the_same_bytes_and_only_lost_rows_are_done_again(
    tmp_path: Path, damage: Callable[[Path], None], again: int
) -> None:
    folder = tmp_path / "run"
    page(folder)
    whole = parts(folder)
    damage(folder)
    assert verify(folder) != []
    assert repair(folder).said != []
    assert len(page(folder)[0]) == again
    assert parts(folder) == whole
    assert verify(folder) == []


def test_a_database_lost_in_the_middle_costs_what_was_open(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    deadly.add("r22")
    with pytest.raises(ModelUnavailable):
        page(folder)
    deadly.clear()
    lose_database(folder)
    write_json(folder / "run.json", {"format": 2})
    said = repair(folder).said
    assert 'stage "first": 16 rows are kept.' in said
    assert "what was not sealed yet is lost and will be done again." in said
    tried, _ = page(folder)
    assert [id for id in tried if "~" not in id] == [f"r{n}" for n in range(16, 30)]
    assert verify(folder) == []


def stopped_at(folder: Path, id: str) -> None:
    """A run that ended when the model went away at this id, as its folder says of itself."""
    deadly.add(id)
    with pytest.raises(ModelUnavailable):
        page(folder)
    deadly.clear()
    with closing(Journal(folder, "look")) as journal:
        write_json(folder / "run.json", {"format": 2, "journal": journal.run})


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "state.db", isolation_level=None)) as db:
        db.execute(statement)


def sealed(folder: Path) -> dict[str, int]:
    """Parts that the journal knows of, by stage in their order."""
    with closing(Journal(folder, "look")) as journal:
        return {stage: len(journal.sealed(stage)) for stage in journal.stages()}


def test_open_rows_of_a_stage_that_lost_a_part_or_a_row_are_kept_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped_at(folder, "r25~")
    cut_part(folder)
    change(folder, "UPDATE result SET outcome = '\"OTHER\"' WHERE stage = 'first' AND row = 24")
    assert repair(folder).said[-1] == 'stage "first": 9 rows are lost and will be done again.'
    assert page(folder)[0] == [*(f"r{n}" for n in range(8, 16)), "r24", *(f"r{n}~" for n in range(25, 30))]
    assert verify(folder) == []


def test_several_lost_parts_are_counted_together_and_earlier_stages_are_left_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    flip_part(folder)
    lose_part(folder)
    assert repair(folder).said[-1] == 'stage "second": 16 rows are lost and will be done again.'
    assert sealed(folder) == {"first": 4, "second": 0}
    assert len(page(folder)[0]) == 16


@pytest.mark.parametrize("rows", [1, 5])
def test_a_whole_run_without_its_database_says_what_is_kept_and_of_nothing_lost(tmp_path: Path, rows: int) -> None:
    folder = tmp_path / "run"
    page(folder, rows, stages=("zebra", "antelope"))  # one part each, and not in the order of the alphabet
    lose_database(folder)
    assert repair(folder).said == [
        f"{folder / 'state.db'}: is missing; the journal is built anew from its parts.",
        f'stage "zebra": {rows} rows are kept.',
        f'stage "antelope": {rows} rows are kept.',
    ]
    assert list(sealed(folder).items()) == [("zebra", 1), ("antelope", 1)]
    assert page(folder, rows, stages=("zebra", "antelope"))[0] == []


def lose_decisions(folder: Path) -> None:
    (folder / "decisions.parquet").unlink()


@pytest.mark.parametrize(
    ("damage", "name", "said", "after"),
    [
        (spoil_success, "stages/first/_SUCCESS.json", "is damaged; it will be written again.", []),
        (lose_decisions, "decisions.parquet", "is missing; it will be written again.", []),
        (spoil_decisions, "decisions.parquet", "is not as it was written; it will be written again.", []),
        (cut_part, "stages/first/part-000001.parquet", "is not as it was sealed; its rows will be done again.",
         ['stage "first": 8 rows are lost and will be done again.']),
    ],
)  # fmt: skip
def test_each_damage_is_told_with_what_is_done_about_it(
    tmp_path: Path, damage: Callable[[Path], None], name: str, said: str, after: list[str]
) -> None:
    folder = tmp_path / "run"
    page(folder)
    damage(folder)
    assert repair(folder).said == [f"{folder / name}: {said}", *after]


def test_an_input_that_was_read_is_read_again_only_where_what_came_of_it_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    source = folder / "inputs" / "source.json"
    source.parent.mkdir()
    write_json(source, {"rows": 30})
    cut_part(folder)
    repair(folder)
    assert source.exists()
    source.write_text("{}")
    assert repair(folder).said == [f"{source}: is damaged; the input will be read again."]
    assert not source.parent.exists()


def test_nothing_is_touched_where_run_json_is_damaged_whatever_else_is(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    (folder / "run.json").write_text("{}")
    cut_part(folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert repair(folder).said == []
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "LOCK"} == {
        p: content for p, content in before.items() if p.name != "LOCK"
    }


def test_failures_of_another_kind_keep_their_place_while_some_are_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ill.add("r3")
    rude.add("r5")
    stopped_at(folder, "r29~")  # a run that has not ended yet
    assert retry(folder, "unanswered") == 1
    ill.clear()
    rude.clear()
    tried, found = page(folder)
    assert sorted(tried) == ["r27~", "r28~", "r29~", "r3", "r3~"]  # the last chunk of the second stage was lost
    assert len(found) == 29  # the refused one has no second stage


def test_an_outcome_in_stock_that_is_not_as_it_was_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder, sick=(3,))
    ill.clear()
    retry(folder, "unanswered")
    change(folder, "UPDATE stock SET outcome = '\"OTHER\"' WHERE stage = 'first' AND id = 'r7'")
    assert sorted(page(folder)[0]) == ["r3", "r3~", "r7"]


class Heard(Progress):
    """Remembers how many were taken over from an earlier course of each stage."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int]] = []

    def take_over(self, stage: str, items: int) -> None:
        self.taken.append((stage, items))


def test_what_is_taken_from_stock_is_told_and_is_not_counted_as_work(tmp_path: Path) -> None:
    folder, heard = tmp_path / "run", Heard()
    page(folder, sick=(3,))
    ill.clear()
    retry(folder, "unanswered")
    data = Dataset.of(Record(f"r{n}", (Message("user", "say"), Message("assistant", f"word {n}"))) for n in range(30))
    with Run(folder, Local(), progress=heard) as run:
        run.map("first", Shout(), data)
        run.map("first", Shout(), data)
        assert [s.worked for s in run.stages] == [1, 0]
    assert heard.taken == [("first", 29)]


def test_more_outcomes_than_are_taken_from_stock_together_are_all_taken(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder, rows=600, sick=(599,))
    ill.clear()
    retry(folder, "unanswered")
    assert sorted(page(folder, rows=600)[0]) == ["r599", "r599~"]
    assert verify(folder) == []


def test_damaged_parts_of_a_lost_journal_are_counted_by_stage(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    lose_database(folder)
    cut_part(folder)
    for name in ("first/part-000003.parquet", "second/part-000002.parquet"):
        (folder / "stages" / name).write_bytes(b"PAR1")
    assert repair(folder).said[1:] == [
        'stage "first": 16 rows are kept.',
        'stage "second": 22 rows are kept.',
        'stage "first": 2 parts are damaged; their rows will be done again.',
        'stage "second": 1 parts are damaged; their rows will be done again.',
        "what was not sealed yet is lost and will be done again.",
    ]
    assert len(page(folder)[0]) == 8 + 6 + 8


def test_a_journal_built_anew_leaves_the_sealed_rows_of_the_first_stage_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped_at(folder, "r22~")
    lose_database(folder)
    repair(folder)
    assert sealed(folder) == {"first": 3, "second": 0}
    assert page(folder)[0] == [*(f"r{n}" for n in range(24, 30)), *(f"r{n}~" for n in range(16, 30))]


def test_what_a_damaged_journal_still_tells_of_open_rows_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped_at(folder, "r22~")
    change(folder, "UPDATE part SET rows = rows - 1 WHERE stage = 'first' AND number = 2")
    assert repair(folder).said[1:] == [
        'stage "first": 24 rows are kept.',
        'stage "second": 16 rows are kept.',
        'stage "first": 6 open rows are kept.',
        'stage "second": 4 open rows are kept.',
        "what else was not sealed yet is lost and will be done again.",
    ]
    assert page(folder)[0] == [f"r{n}~" for n in range(20, 30)]


def test_open_rows_of_another_run_are_not_taken_for_ones_of_this(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    stopped_at(folder, "r22~")
    stopped_at(other, "r28~")
    (folder / "state.db").write_bytes((other / "state.db").read_bytes())
    assert repair(folder).said[-1] == "what was not sealed yet is lost and will be done again."
    assert page(folder)[0] == [*(f"r{n}" for n in range(24, 30)), *(f"r{n}~" for n in range(16, 30))]


def test_no_damaged_database_is_written_over_by_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    for _ in range(3):
        spoil_database(folder)
        repair(folder)
    assert sorted(p.name for p in folder.glob("state.db.damaged-?")) == [f"state.db.damaged-{n}" for n in (1, 2, 3)]
    (folder / "state.db.damaged-2").unlink()  # somebody has looked at this one, and needs it no longer
    last = (folder / "state.db.damaged-3").read_bytes()
    for _ in range(2):
        (folder / "state.db").write_bytes(b"no database at all")
        repair(folder)
    assert sorted(p.name for p in folder.glob("state.db.damaged-?")) == [f"state.db.damaged-{n}" for n in (1, 2, 3, 4)]
    assert (folder / "state.db.damaged-3").read_bytes() == last


def test_a_folder_whose_run_json_is_damaged_says_that_it_cannot_be_repaired(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    (folder / "run.json").write_text("{}")
    assert [f.cure for f in verify(folder)] == ["none"]
    done = repair(folder)
    assert (done.said, [f.said.partition(";")[0] for f in done.left]) == ([], [f"{folder / 'run.json'}: is damaged"])


def test_what_is_repaired_twice_is_repaired_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    both(folder)
    repair(folder)
    assert repair(folder) == Repaired([], [])
    assert read_json(folder / "run.json") == {"format": 2}


def test_what_cannot_be_read_is_blamed_and_not_the_lock(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"^{tmp_path}: .*directory"):
        digest(tmp_path)
    (tmp_path / "LOCK").touch()
    with pytest.raises(OSError, match="somewhere else"), looked_at(tmp_path):
        raise OSError("somewhere else")


def with_output(folder: Path, output: Path) -> None:
    """A run that is complete and has written its output, as its result says."""
    page(folder)
    output.write_bytes(b"what is kept\n")
    said: dict[str, Json] = {"path": path_as_text(output), "sha256": digest(output)}
    write_json(folder / "result.json", {"counts": {}, "files": {}, "output": said})


def test_an_output_is_looked_for_where_it_was_written_and_beside_its_folder(tmp_path: Path) -> None:
    folder, output = tmp_path / "run", tmp_path / "elsewhere" / "kept.jsonl"
    output.parent.mkdir()
    with_output(folder, output)
    assert verify(folder) == []
    output.write_bytes(b"what is kept, changed\n")
    said = f"{output}: is not as the run wrote it; remove it, and the same command writes it again."
    assert verify(folder) == [Finding(said, "none")]
    assert repair(folder) == Repaired([], [Finding(said, "none")])
    (tmp_path / "kept.jsonl").write_bytes(b"what is kept\n")  # a copy that is as it was written is enough
    assert verify(folder) == []
    output.unlink()  # both were moved to another place together
    assert verify(folder) == []
    (tmp_path / "kept.jsonl").write_bytes(b"changed too\n")
    assert [(f.cure, f.said.partition(":")[0]) for f in verify(folder)] == [("none", str(tmp_path / "kept.jsonl"))]
    (tmp_path / "kept.jsonl").unlink()
    assert verify(folder) == [Finding(f"{output}: is missing; the same command writes it again.", "write again")]
    assert repair(folder).said == [f"{output}: is missing; it will be written again."]
    assert verify(folder) == [], "the run is no longer complete"


def test_an_input_folder_that_is_lost_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    write_json(folder / "result.json", {"counts": {}, "files": {"inputs/records.arrow": "0" * 64}})
    said = f"{folder / 'inputs' / 'records.arrow'}: is missing; the input will be read again."
    assert repair(folder).said == [said]
    assert page(folder)[0] == []


def test_a_journal_of_another_run_is_told_from_this_one_s(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    stopped_at(folder, "r22~")
    stopped_at(other, "r28~")
    (folder / "state.db").write_bytes((other / "state.db").read_bytes())
    said = (f"{folder / 'state.db'}: has lost the run that stands beside it; tunesift repair {folder} builds it anew "
            "from the run's parts.")  # fmt: skip
    assert verify(folder) == [Finding(said, "rebuild")]


def test_parts_of_a_stage_that_the_journal_has_forgotten_are_found_and_taken_up_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    change(folder, "DELETE FROM part WHERE stage = 'second'")
    change(folder, "DELETE FROM stage WHERE name = 'second'")
    place = folder / "stages" / "second"
    assert verify(folder) == [
        Finding(f"{place / f'part-{n:06d}.parquet'}: holds rows that the journal has lost; tunesift repair {folder} takes "
                "them up again.", "rebuild")
        for n in range(4)
    ]  # fmt: skip
    repair(folder)
    assert page(folder)[0] == []
    assert verify(folder) == []


def test_a_record_that_does_not_fit_its_part_is_found_and_the_part_s_rows_are_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped_at(folder, "r29~")
    with closing(Journal(folder)) as journal:
        wrong = journal.sealed("second")[1]
        journal.db.execute("DELETE FROM part WHERE stage = 'second' AND number = 1")
        record(journal.db, "second", replace(wrong, failed=3))
    said = f"{folder / 'stages' / 'second'}: part 1 does not hold the rows recorded."
    assert verify(folder) == [Finding(said, "redo rows", "second", 1)]
    assert repair(folder).said[-1] == 'stage "second": 8 rows are lost and will be done again.'


def test_an_open_row_that_is_not_as_it_was_is_found_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped_at(folder, "r22~")
    change(folder, "UPDATE result SET outcome = '\"OTHER\"' WHERE stage = 'second' AND row = 17")
    said = (f'{folder / "state.db"}: row 17 of the stage "second" is not as it was written; tunesift repair {folder} does '
            "it again.")  # fmt: skip
    assert verify(folder) == [Finding(said, "redo rows", "second")]


def test_a_list_of_parts_that_is_another_stage_s_is_found_and_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    stages = folder / "stages"
    (stages / "second" / "_SUCCESS.json").write_bytes((stages / "first" / "_SUCCESS.json").read_bytes())
    success = stages / "second" / "_SUCCESS.json"
    assert verify(folder) == [Finding(f"{success}: names other parts than the journal.", "write again")]
    repair(folder)
    assert page(folder)[0] == []
    assert verify(folder) == []


def test_open_rows_are_kept_where_the_damage_of_the_database_is_not_theirs(tmp_path: Path) -> None:
    """A database that can no longer be written, since a page of it is broken, may still tell most of what it holds."""
    folder = tmp_path / "run"
    stopped_at(folder, "r22~")
    path = folder / "state.db"
    with closing(sqlite3.connect(path)) as db:
        (number,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'discarded'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    whole = bytearray(path.read_bytes())
    whole[(number - 1) * size : number * size] = b"\xff" * size
    path.write_bytes(whole)
    assert [f.cure for f in verify(folder)] == ["rebuild"]
    assert 'stage "second": 4 open rows are kept.' in repair(folder).said
    assert page(folder)[0] == [f"r{n}~" for n in range(20, 30)]


def test_a_run_that_is_begun_again_asks_only_for_what_is_new_and_keeps_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    page(folder)
    with Run(folder, Local()) as run:
        run.reopen()
    assert not (folder / "result.json").exists()
    tried, found = page(folder, rows=32)
    assert tried == ["r30", "r31", "r30~", "r31~"]
    assert len(found) == 32
