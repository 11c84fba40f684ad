"""The journal: what is open, what is sealed, and what it says of a folder that is not as it was left."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesift import ResumeError, StorageError
from tunesift.disk import sync
from tunesift.running import fsio
from tunesift.running import journal as storage
from tunesift.running.database import FORMAT, crc, transaction
from tunesift.running.fsio import read_json, write_json
from tunesift.running.journal import Journal, StageJournal
from tunesift.running.parts import Entry, Sealed, find, load

PART = 8


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART_ROWS", PART)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], StageJournal]]:
    """Opens the stage "ifd" of one folder, as often as it is asked; each time is a new life."""
    lives: list[Journal] = []

    def open_again() -> StageJournal:
        for life in lives:
            life.close()
        lives.append(Journal(tmp_path))
        return lives[-1].stage("ifd", {"n": 1})

    yield open_again
    for life in lives:
        life.close()


Opened = Callable[[], StageJournal]


def entry(row: int, outcome: str = "", failure: str | None = None) -> Entry:
    id = f"r{row}"
    return Entry(row, id, hashlib.sha256(id.encode()).digest()[:16], failure, outcome or json.dumps({"row": row}))


def entries(rows: Sequence[int]) -> list[Entry]:
    return [entry(row) for row in rows]


def stage_folder(tmp_path: Path) -> Path:
    return tmp_path / "stages" / "ifd"


def parts(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in stage_folder(tmp_path).glob("part-*"))


def recorded(tmp_path: Path, what: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(tmp_path / "state.db")
    try:
        return db.execute(what).fetchall()
    finally:
        db.close()


def test_what_was_committed_is_there_in_the_next_life(opened: Opened) -> None:
    said = [entry(0), entry(1, "refused to answer", "refused"), entry(2, 'ü\n\0 "quoted" \u2028')]
    opened().commit(said)
    again = opened()
    assert [again.get(row) for row in range(4)] == [*said, None]
    assert len(again) == 3


def test_what_was_not_committed_did_not_happen(opened: Opened) -> None:
    first = opened()
    first.commit(entries([0]))
    with pytest.raises(StorageError):
        first.commit(entries([1, 2, 0]))  # row 0 is there: nothing of this commit may stay
    assert [opened().get(row) is not None for row in range(3)] == [True, False, False]


def interrupted_insert(db: sqlite3.Connection) -> None:
    with transaction(db):
        db.execute("INSERT INTO stage (name, settings) VALUES ('gone', '{}')")
        raise KeyboardInterrupt


def test_a_transaction_is_undone_by_any_exception(opened: Opened, tmp_path: Path) -> None:
    opened()
    db = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    with pytest.raises(KeyboardInterrupt):
        interrupted_insert(db)
    assert db.execute("SELECT count(*) FROM stage WHERE name = 'gone'").fetchone() == (0,)
    db.close()


def test_a_part_is_sealed_when_its_last_row_comes_whatever_the_order(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    stage.commit(entries([9, 3, 7, 1, 0, 2, 6]))
    stage.commit(entries([5]))
    assert parts(tmp_path) == []
    stage.commit(entries([4]))
    assert parts(tmp_path) == ["part-000000.parquet"]
    assert recorded(tmp_path, "SELECT row FROM result") == [(9,)]
    assert [stage.get(row) for row in range(PART)] == entries(range(PART))
    table = pq.read_table(stage_folder(tmp_path) / "part-000000.parquet")
    assert table.column("row").to_pylist() == list(range(PART))


def test_one_commit_may_fill_several_parts(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    stage.commit(entries(range(3 * PART + 1)))
    assert parts(tmp_path) == [f"part-{n:06d}.parquet" for n in range(3)]
    assert len(stage) == 3 * PART + 1


def test_checksums_of_parts_stand_in_the_database_and_in_the_success_file(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    stage.commit([*entries(range(11)), entry(11, "nothing came", "unanswered")])
    stage.finish(12)
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in stage_folder(tmp_path).glob("part-*.parquet")}
    assert len(sums) == 2
    rows = recorded(tmp_path, "SELECT number, rows, failed, bytes, sha256 FROM part ORDER BY number")
    assert [row[4] for row in rows] == [sums[name] for name in sorted(sums)]
    success = json.loads((stage_folder(tmp_path) / "_SUCCESS.json").read_text())
    assert success["rows"] == 12
    assert success["stage"] == "ifd"
    assert [tuple(p[n] for n in ("number", "rows", "failed", "bytes", "sha256")) for p in success["parts"]] == rows
    assert [p["failed"] for p in success["parts"]] == [0, 1]


def test_a_success_file_comes_only_when_the_stage_is_finished(opened: Opened, tmp_path: Path) -> None:
    opened().commit(entries(range(2 * PART)))
    assert not (stage_folder(tmp_path) / "_SUCCESS.json").exists()


def test_finishing_twice_changes_nothing(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    stage.commit(entries(range(11)))
    stage.finish(11)
    before = {p.name: p.read_bytes() for p in stage_folder(tmp_path).iterdir()}
    stage.finish(11)
    opened().finish(11)
    assert {p.name: p.read_bytes() for p in stage_folder(tmp_path).iterdir()} == before


def test_a_stage_without_rows_can_be_finished(opened: Opened, tmp_path: Path) -> None:
    opened().finish(0)
    assert json.loads((stage_folder(tmp_path) / "_SUCCESS.json").read_text())["rows"] == 0


def test_a_finished_stage_takes_no_more_rows(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    stage.commit(entries(range(11)))
    stage.finish(11)
    for life in (stage, opened()):
        for row in (11, 2 * PART):
            with pytest.raises(ResumeError, match=r'^stage "ifd" was finished with 11 rows and is now asked for more;'):
                life.get(row)
    assert [opened().get(row) for row in (8, 10)] == entries([8, 10])


def test_a_stage_whose_last_part_is_sealed_takes_no_more_rows_though_it_died_before_it_said_so(
    opened: Opened, tmp_path: Path
) -> None:
    stage = opened()
    stage.commit(entries(range(11)))
    stage.finish(11)
    (stage_folder(tmp_path) / "_SUCCESS.json").unlink()
    with pytest.raises(ResumeError, match=r'^stage "ifd" was finished with 11 rows and is now asked for more;'):
        opened().get(11)


@pytest.mark.parametrize(
    "name",
    ["part-000000.parquet.4121.tmp", "part-000007.parquet", "part-000000.parquet", "part-x.parquet", "part-9.tmp"],
)
def test_a_file_that_no_record_names_is_removed_on_reopening(opened: Opened, tmp_path: Path, name: str) -> None:
    opened().commit(entries([0, 1]))
    stranger = stage_folder(tmp_path) / name
    stranger.write_bytes(b"half of a part")
    stage = opened()
    assert not stranger.exists()
    stage.commit(entries(range(2, PART)))
    assert opened().get(1) == entry(1)


def test_a_temporary_success_file_does_not_pile_up(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    stage.commit(entries([0]))
    folder = stage_folder(tmp_path)
    write_json(folder / "_SUCCESS.json", {})
    for left in folder.iterdir():
        left.rename(left.with_name("_SUCCESS.json.tmp"))  # as a kill between the two steps leaves it
    opened().finish(1)
    assert sorted(p.name for p in folder.iterdir()) == ["_SUCCESS.json", "part-000000.parquet"]


def test_any_range_of_rows_says_what_is_missing_and_what_failed(opened: Opened) -> None:
    done = {*range(PART), 9, 11, 15, *range(2 * PART, 3 * PART), 25, 30}
    failed = {0, 7, 9, 16, 23, 30}
    stage = opened()
    stage.commit([entry(row, "no", "refused") if row in failed else entry(row) for row in sorted(done)])
    for _ in range(2):
        for first in range(0, 36, 5):
            for count in range(0, 40, 3):
                asked = range(first, first + count)
                assert list(stage.missing(first, count)) == [row for row in asked if row not in done]
                assert sorted(e.row for e in stage.failures(first, count)) == [row for row in asked if row in failed]
        stage = opened()


def test_what_was_begun_when_a_life_ended_is_counted_unless_it_left_a_note_or_closed(tmp_path: Path) -> None:
    def crashes(closes: bool, left: bool = False) -> dict[int, int]:
        """Rows of crashes as a life finds them that begins two rows more, does one of them, and ends so."""
        journal = Journal(tmp_path)
        stage = journal.stage("ifd", {"n": 1})
        assert not (tmp_path / ".left").exists()
        done = len(stage)
        stage.begin([40, done])
        stage.commit([entry(done)])
        if left:
            (tmp_path / ".left").touch()
        if closes:
            journal.close()
        else:
            journal.db.close()  # as a kill does
        return stage.crashed

    lives = [dict(closes=True), dict(closes=False), dict(closes=False), dict(closes=False, left=True),
             dict(closes=False), dict(closes=True), dict(closes=True)]  # fmt: skip
    assert [crashes(**life).get(40, 0) for life in lives] == [0, 0, 1, 2, 2, 3, 3]
    assert crashes(closes=True) == {40: 3}


@pytest.mark.parametrize("open_", [8, 7])
def test_a_part_whose_rows_are_all_open_is_written_again_and_one_with_a_row_more_is_a_loss(
    opened: Opened, tmp_path: Path, open_: int
) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Journal(tmp_path / "elsewhere")
    elsewhere.stage("ifd", {"n": 1}).commit(entries(range(2 * PART)))
    elsewhere.close()
    opened().commit(entries(range(PART, PART + open_)), seal=False)
    part = stage_folder(tmp_path) / "part-000001.parquet"
    shutil.copyfile(tmp_path / "elsewhere" / "stages" / "ifd" / part.name, part)
    if open_ == PART:
        assert opened().get(PART + 3) == entry(PART + 3)
        assert not part.exists()
    else:
        with pytest.raises(StorageError) as refusal:
            opened()
        said = f"{part}: holds rows that the journal has lost; tunesift repair {tmp_path} takes them up again."
        assert str(refusal.value) == said
        assert part.exists()


def test_a_part_of_another_stage_or_a_link_in_a_part_s_place_is_no_loss(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Journal(tmp_path / "elsewhere")
    for name in ("embed", "ifd"):
        elsewhere.stage(name, {"n": 1}).commit(entries(range(PART)))
    elsewhere.close()
    opened().commit(entries([20]))
    stages = tmp_path / "elsewhere" / "stages"
    shutil.copyfile(stages / "embed" / "part-000000.parquet", stage_folder(tmp_path) / "part-000000.parquet")
    (stage_folder(tmp_path) / "part-000001.parquet").symlink_to(stages / "ifd" / "part-000000.parquet")
    assert len(opened()) == 1
    assert parts(tmp_path) == []
    assert (stages / "ifd" / "part-000000.parquet").exists()


def test_a_part_whose_rows_are_not_those_that_were_sealed_is_not_taken_up(opened: Opened, tmp_path: Path) -> None:
    opened().commit(entries(range(PART)))
    part = stage_folder(tmp_path) / "part-000000.parquet"
    found = find(part)
    assert found is not None
    assert (found[0].stage, found[1].number, found[1].rows, found[1].failed) == ("ifd", 0, PART, 0)
    table = pq.read_table(part)
    other = table.set_column(4, table.schema.field(4), [['"other"', *table.column(4).to_pylist()[1:]]])
    for changed in (other.replace_schema_metadata(table.schema.metadata), table.slice(0, 0)):
        pq.write_table(changed, part)
        assert find(part) is None


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-1])


def grow(part: Path) -> None:
    part.write_bytes(part.read_bytes() + b"\0")


@pytest.mark.parametrize("damage", [cut, grow, Path.unlink])
def test_a_part_of_the_wrong_size_is_refused_with_a_sentence(
    opened: Opened, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    opened().commit(entries(range(PART)))
    part = stage_folder(tmp_path) / "part-000000.parquet"
    damage(part)
    with pytest.raises(StorageError) as refusal:
        opened()
    assert str(refusal.value) == f"{part}: is not as it was sealed; tunesift repair {tmp_path} does its rows again."
    assert refusal.value.exit_code == 74


def test_any_changed_byte_of_a_sealed_part_is_noticed_when_it_is_read(opened: Opened, tmp_path: Path) -> None:
    opened().commit(entries(range(PART)))
    part = stage_folder(tmp_path) / "part-000000.parquet"
    whole = part.read_bytes()
    again = opened()
    for place in range(0, len(whole), 61):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        with pytest.raises(StorageError) as refusal:
            again.get(3)
        assert str(refusal.value) == f"{part}: is not as it was sealed; tunesift repair {tmp_path} does its rows again."
    part.unlink()
    with pytest.raises(StorageError) as refusal:
        again.get(3)
    assert str(refusal.value).startswith(f"{part}: ")
    part.write_bytes(whole)
    assert again.get(3) == entry(3)


def test_a_part_is_read_once_for_all_its_rows(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened().commit(entries(range(2 * PART)))
    again, loaded = opened(), []

    def watched(folder: Path, sealed: Sealed) -> list[Entry]:
        loaded.append(sealed.number)
        return load(folder, sealed)

    monkeypatch.setattr(storage, "load", watched)
    assert [again.get(row) for row in range(2 * PART)] == entries(range(2 * PART))
    assert loaded == [0, 1]


def test_a_part_that_cannot_get_its_name_is_named(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    part = stage_folder(tmp_path) / "part-000000.parquet"
    part.mkdir()
    with pytest.raises(StorageError) as refusal:
        stage.commit(entries(range(PART)))
    assert str(refusal.value).startswith(f"{part}: ")


def test_a_data_set_is_believed_in_every_life_where_nothing_was_done_before_it(opened: Opened) -> None:
    for _ in range(3):
        assert opened().expects(0, 3, "a")
    assert not opened().expects(0, 3, "b")
    assert not opened().expects(0, 3, "a"), "nobody is believed any more"


@pytest.mark.parametrize("done", [3, PART, PART + 3, 2 * PART])
def test_a_data_set_is_not_believed_over_rows_that_are_done(opened: Opened, done: int) -> None:
    opened().commit(entries(range(done)))
    for first in range(done):
        assert not opened().expects(first, 99, "a")
    assert opened().expects(done, 99, "a")


def test_a_damaged_database_is_refused_with_a_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.stage("ifd", {}).commit([entry(row, "x" * 3000) for row in range(PART - 1)])
    journal.close()
    database = tmp_path / "state.db"
    content = bytearray(database.read_bytes())
    content[8192:] = b"\xff" * len(content[8192:])
    database.write_bytes(content)
    with pytest.raises(StorageError, match=r"^\S+: .*(damaged|malformed).*; check the disk and start again\.$"):
        Journal(tmp_path)


def lose(folder: Path) -> None:
    for path in folder.glob("state.db*"):
        path.unlink()


def empty(folder: Path) -> None:
    lose(folder)
    (folder / "state.db").touch()


def put_in_a_database_of_nobody_s(folder: Path) -> None:
    lose(folder)
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.execute("CREATE TABLE other (n INTEGER)")


def put_in_another_run_s(folder: Path) -> None:
    lose(folder)
    (folder / "beside").mkdir()
    Journal(folder / "beside").close()
    (folder / "beside" / "state.db").rename(folder / "state.db")


@pytest.mark.parametrize("damage", [lose, empty, put_in_a_database_of_nobody_s, put_in_another_run_s])
def test_a_folder_that_has_lost_its_journal_is_not_taken_for_a_new_one(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with closing(Journal(tmp_path)) as journal:
        write_json(tmp_path / "run.json", {"journal": journal.run})
    damage(tmp_path)
    said = (f"{tmp_path / 'state.db'}: has lost the run that stands beside it; tunesift repair {tmp_path} builds it anew "
            "from the run's parts.")  # fmt: skip
    for _ in range(2):
        with pytest.raises(StorageError) as refusal:
            Journal(tmp_path)
        assert str(refusal.value) == said
    if damage in (empty, put_in_a_database_of_nobody_s):
        with pytest.raises(StorageError) as refusal:
            Journal(tmp_path, "look")
        assert str(refusal.value) == said
    if damage is not put_in_another_run_s:  # that one is put aside first
        Journal(tmp_path, "anew").close()


def test_a_sealed_part_alone_is_proof_of_a_run_and_what_is_none_is_not(opened: Opened, tmp_path: Path) -> None:
    opened().commit(entries(range(PART)))
    moved = tmp_path / "moved.parquet"
    shutil.copyfile(stage_folder(tmp_path) / "part-000000.parquet", moved)
    for folder in (tmp_path / "sound", tmp_path / "broken", tmp_path / "link", tmp_path / "linked"):
        (folder / "stages").mkdir(parents=True)
        if folder.name == "linked":
            (folder / "stages" / "ifd").symlink_to(stage_folder(tmp_path))
        else:
            (folder / "stages" / "ifd").mkdir()
    place = Path("stages", "ifd", "part-000000.parquet")
    shutil.copyfile(moved, tmp_path / "sound" / place)
    (tmp_path / "broken" / place).write_bytes(moved.read_bytes()[:-1])
    (tmp_path / "link" / place).symlink_to(moved)
    with pytest.raises(StorageError, match="has lost the run that stands beside it"):
        Journal(tmp_path / "sound")
    for name in ("broken", "link", "linked"):
        Journal(tmp_path / name).close()


def test_a_folder_of_another_version_is_refused_with_both_versions(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    for change, said in (("UPDATE meta SET value = '9' WHERE key = 'format'", 9),
                         ("DELETE FROM meta WHERE key = 'format'", 2)):  # fmt: skip
        stage._db.execute(change)
        with pytest.raises(ResumeError) as refusal:
            Journal(tmp_path)
        assert str(refusal.value) == f"{tmp_path}: is a run of format {said}, not {FORMAT}; use another folder."


def test_an_unwritable_disk_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"^{tmp_path / 'missing'}: .*; check the disk and start again\.$"):
        Journal(tmp_path / "missing")
    (tmp_path / "stages").write_text("no folder")
    with closing(Journal(tmp_path)) as journal, pytest.raises(StorageError) as refusal:
        journal.stage("ifd", {})
    assert str(refusal.value).startswith(f"{tmp_path / 'stages' / 'ifd'}: ")
    path = tmp_path / "missing" / "run.json"
    with pytest.raises(StorageError, match=rf"^{path}: .*; check the disk and start again\.$"):
        write_json(path, {})


def test_a_failed_sync_leaves_the_rows_open_for_the_next_life(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(path: Path) -> None:
        raise OSError(28, "No space left on device")

    stage = opened()
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "sync", no_space)
        with pytest.raises(StorageError, match="No space left on device"):
            stage.commit(entries(range(PART)))
    again = opened()
    assert parts(tmp_path) == []
    assert [again.get(row) for row in range(PART)] == entries(range(PART))
    again.finish(PART)
    assert parts(tmp_path) == ["part-000000.parquet"]


def test_a_part_that_reads_back_otherwise_is_not_sealed(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", lambda file, **options: read(file, **options).slice(1))
    part = stage_folder(tmp_path) / "part-000000.parquet.tmp"
    with pytest.raises(StorageError, match=rf"^{part}: reads back other than it was written; check the disk\.$"):
        opened().commit(entries(range(PART)))
    monkeypatch.undo()
    assert recorded(tmp_path, "SELECT * FROM part") == []


def test_parts_do_not_depend_on_when_rows_came_or_on_how_often_we_died(opened: Opened, tmp_path: Path) -> None:
    def sealed() -> dict[str, bytes]:
        return {name: (stage_folder(tmp_path) / name).read_bytes() for name in parts(tmp_path)}

    stage = opened()
    stage.commit(entries(range(19)))
    stage.finish(19)
    together = sealed()
    shutil.rmtree(stage_folder(tmp_path))
    (tmp_path / "state.db").unlink()
    for row in sorted(range(19), key=lambda n: n * 7 % 19):
        opened().commit(entries([row]))
    opened().finish(19)
    assert sealed() == together


def test_a_stage_begun_with_other_settings_names_the_setting_and_both_values(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.stage("ifd", {"student": {"name": "ä"}, "turns": "last"})
    with pytest.raises(ResumeError) as refusal:
        journal.stage("ifd", {"student": {"name": "b"}, "turns": "last"})
    journal.close()
    assert str(refusal.value) == (
        'stage "ifd" was started with student.name="ä"; it is now "b"; use another folder, or go back.'
    )


def test_stages_are_kept_apart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    embed, ifd = journal.stage("embed", {}), journal.stage("ifd", {})
    embed.commit(entries(range(PART)))
    ifd.commit([entry(0, "1")])
    assert (len(embed), len(ifd)) == (PART, 1)
    assert ifd.get(0) == entry(0, "1")
    assert ifd.get(1) is None
    assert journal.stages() == ["embed", "ifd"]
    journal.close()


def test_what_goes_wrong_with_the_disk_names_the_run_wherever_it_happens(opened: Opened, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    stage, full = journal.stage("ifd", {"n": 1}), journal.stage("full", {})
    stage.commit(entries(range(3)))
    full.commit(entries(range(PART)))
    midway = journal.entries("full")
    assert [next(midway) for _ in range(PART)] == entries(range(PART))
    alone = Journal(tmp_path)  # of which no stage is open
    (tmp_path / "stages" / "full" / "_SUCCESS.json").mkdir()
    journal.db.close()
    alone.db.close()
    asked: list[Callable[[], object]] = [
        lambda: journal.stage("embed", {}), journal.stages, lambda: journal.sealed("ifd"), journal.empty_stock,
        lambda: list(journal.entries("ifd")), journal.close, lambda: alone.take_back(["ifd"], alone.entries),
        lambda: stage.get(0), lambda: stage.begin([5]), lambda: stage.commit([entry(5)]), lambda: stage.finish(3),
        lambda: next(midway), lambda: full.finish(PART), lambda: alone.take_back(["full"], alone.entries),
        lambda: journal.put_by("ifd", {}, iter([])), journal.reuses, lambda: journal.has_one_dataset("ifd"),
        lambda: list(stage.failures(0, 3)), lambda: stage.expects(0, 3, "a"), lambda: stage.in_stock("r0", b"0" * 16),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(StorageError) as refusal:
            ask()
        assert str(refusal.value).startswith(f"{tmp_path}")


def test_an_open_row_that_is_not_as_it_was_is_named_with_its_database(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    stage = journal.stage("ifd", {"n": 1})
    stage.commit(entries(range(3)))
    said = f'{tmp_path / "state.db"}: row 1 of the stage "ifd" is not as it was written; tunesift repair {tmp_path} does it again.'
    for other in ("'other'", "CAST(x'7231ff' AS TEXT)"):  # the second is no UTF-8, as one changed byte leaves it
        journal.db.execute(f"UPDATE result SET id = {other} WHERE row = 1")
        for read in (lambda: list(journal.entries("ifd")), lambda: stage.get(1)):
            with pytest.raises(StorageError) as refusal:
                read()
            assert str(refusal.value) == said
    journal.close()


def test_a_record_of_a_part_or_a_stage_that_is_not_as_it_was_is_named(opened: Opened, tmp_path: Path) -> None:
    opened().commit([*entries(range(PART)), *(entry(row, "no", "refused") for row in range(PART, 2 * PART))])
    said = (
        f'{tmp_path / "state.db"}: what it says of part 1 of the stage "ifd" is not as it was written; tunesift repair '
    )
    with closing(Journal(tmp_path)) as journal:
        journal.db.execute("UPDATE part SET rows = 7 WHERE number = 1")
        for read in (lambda: journal.sealed("ifd"), lambda: journal.stage("ifd", {"n": 1})):
            with pytest.raises(StorageError) as refusal:
                read()
            assert str(refusal.value) == f"{said}{tmp_path} builds it anew."
        journal.db.execute("UPDATE stage SET settings = '{'")
        with pytest.raises(
            StorageError, match=f"^{tmp_path}: state.db is damaged: the settings of the stage ifd are no JSON;"
        ):
            journal.stage("ifd", {"n": 1})


def test_an_open_row_that_is_gone_is_named_and_not_taken_for_one_that_is_to_be_done(
    opened: Opened, tmp_path: Path
) -> None:
    stage = opened()
    stage.commit(entries(range(3)))
    stage._db.execute("DELETE FROM result WHERE row = 1")  # as a changed byte of its number has it
    with pytest.raises(StorageError) as refusal:
        stage.get(1)
    assert str(refusal.value) == (
        f'{tmp_path / "state.db"}: row 1 of the stage "ifd" is not as it was written; tunesift repair {tmp_path} does it again.'
    )
    assert [stage.get(row) for row in (0, 2)] == entries([0, 2])


def test_checksums_are_the_same_ones_in_every_release_that_has_this_format(tmp_path: Path) -> None:
    """CRC-32 of the fields as a JSON list without spaces; with another one, a run begun before would be refused."""
    journal = Journal(tmp_path)
    journal.stage("ifd", {}).commit([entry(row, "nö", "refused") for row in range(PART + 1)])
    queries = {
        "SELECT crc, stage, row, id, lower(hex(digest)), failure, outcome FROM result": 1,
        "SELECT crc, stage, number, rows, failed, bytes, sha256 FROM part": 1,
        "SELECT crc, stage, id, lower(hex(digest)), failure, outcome FROM stock": PART + 1,
    }
    found = [row for query in list(queries)[:2] for row in recorded(tmp_path, query)]
    journal.close()
    journal = Journal(tmp_path)
    journal.take_back(["ifd"], journal.entries)
    journal.close()
    found += recorded(tmp_path, list(queries)[2])
    assert crc("\ud800") < 0, "no sound row holds it, so that no checksum of one may be its own"
    assert len(found) == sum(queries.values())
    for said, *fields in found:
        assert said == zlib.crc32(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())
    assert FORMAT == 3


def test_an_open_row_that_is_not_as_it_was_is_not_sealed(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    stage.commit(entries(range(PART - 1)))
    stage._db.execute("UPDATE result SET id = 'other' WHERE row = 1")
    with pytest.raises(StorageError) as refusal:
        stage.commit(entries([PART - 1]))
    assert str(refusal.value).startswith(f'{tmp_path / "state.db"}: row 1 of the stage "ifd" is not as it was written;')
    assert parts(tmp_path) == []


def test_a_part_that_cannot_be_recorded_leaves_its_rows_open(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    stage._db.execute("INSERT INTO part VALUES ('ifd', 0, 1, 0, 1, '', 0)")
    with pytest.raises(StorageError) as refusal:
        stage.commit(entries(range(PART)))
    assert str(refusal.value).startswith(f"{stage_folder(tmp_path)}: ")
    assert len(recorded(tmp_path, "SELECT row FROM result")) == PART


def test_a_test_can_kill_the_process_at_every_step_of_writing_and_each_is_passed_once(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that was to die at a point which is never passed would prove nothing."""
    stage, rows = opened(), pa.table({"n": [1]})

    def passed(write: Callable[[], object]) -> dict[str, int]:
        monkeypatch.setattr(fsio, "_PASSED", {})
        write()
        return fsio._PASSED

    monkeypatch.setattr(fsio, "_ARMED", "nowhere:1")
    settled = dict.fromkeys(("file.synced", "file.renamed", "file.dir_synced"), 1)
    checked = dict.fromkeys(("part.tmp_written", "part.verified"), 1)
    assert passed(lambda: stage.begin([0])) == dict.fromkeys(("intent.before_commit", "intent.committed"), 1)
    assert passed(lambda: stage.commit(entries([0]))) == dict.fromkeys(("result.before_commit", "result.committed"), 1)
    assert passed(lambda: stage._seal(0)) == {
        **checked, **settled, "part.settled": 1, "seal.mid_txn": 1, "seal.committed": 1}  # fmt: skip
    assert passed(lambda: write_json(tmp_path / "a.json", {})) == {"file.tmp_written": 1, **settled}
    assert passed(lambda: fsio.write_table(tmp_path / "a.parquet", rows)) == {**checked, **settled}
    assert passed(lambda: fsio.write_batches(tmp_path / "b.parquet", rows.schema, rows.to_batches)) == {
        **checked, **settled}  # fmt: skip


def test_parts_without_failures_are_not_read_for_them(opened: Opened, tmp_path: Path) -> None:
    stage = opened()
    stage.commit([*entries(range(PART)), *(entry(row, "no", "refused") for row in range(PART, 2 * PART))])
    journal = Journal(tmp_path)
    (stage_folder(tmp_path) / "part-000000.parquet").write_bytes(b"PAR1")
    assert [e.row for e in journal.failed("ifd")] == list(range(PART, 2 * PART))
    assert [e.row for e in stage.failures(0, 2 * PART)] == list(range(PART, 2 * PART))
    assert list(journal.entries("ifd", skip=[0, 1])) == []
    journal.close()


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"kept": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"kept": float("nan")})
    assert read_json(path) == {"kept": 1}
    sync(path)
