"""What a run leaves in its folder: draws, tables, made records, decisions, and nothing else."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness import door as shared
from harness.door import Life, Measure, all_kept, record, records
from tunesift import (
    CannotCreate,
    DataError,
    Dataset,
    Decision,
    Failure,
    Local,
    Record,
    Run,
    RunError,
    Score,
    StorageError,
)
from tunesift.running import run as door
from tunesift.running.fsio import read_json

fresh, life = shared.fresh, shared.life


def test_draws_of_a_seed_are_the_same_ones_in_every_release(life: Life) -> None:
    """The first eight bytes of the SHA-256 of the seed and the names, as a JSON list, are the seed of the stream."""
    with life(seed=7) as run:
        drawn = run.random("pair", 1).random()
    text = '[7, "pair", "1"]'
    assert drawn == random.Random(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)).random()


def test_draws_depend_on_the_seed_and_the_names_only(life: Life, tmp_path: Path) -> None:
    def draws(run: Run, *names: object) -> list[float]:
        stream = run.random(*names)
        return [stream.random() for _ in range(3)]

    with life(seed=7) as run:
        first = draws(run, "pair", "r1")
        random.seed(1)
        draws(run, "pair", "r2")
        assert draws(run, "pair", "r1") == first
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(draws, run, "pair", "r1").result() == first
        others = [
            draws(run, *names) for names in (("pair", "r2"), ("pair",), ("pairr1",), ("pair", "r", "1"), ("r1", "pair"))
        ]
    with Run(tmp_path / "other", Local(), seed=7) as run:
        assert draws(run, "pair", "r1") == first
    with Run(tmp_path / "third", Local(), seed=8) as run:
        others.append(draws(run, "pair", "r1"))
    assert all(other != first for other in others)
    assert len({tuple(o) for o in others}) == len(others)
    script = "import sys; from tunesift import *; from pathlib import Path; print(Run(Path('.'), Local(), 7).random('pair', 'r1').random())"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert float(told.stdout) == first[0]


def test_records_that_a_page_makes_are_on_disk_and_made_anew_each_time(life: Life, tmp_path: Path) -> None:
    with life() as run:
        assert list(run.dataset("winners", records(3))) == records(3)
        made = run.dataset("winners", (record(f"w{n}") for n in range(2)))
        assert list(made.ids()) == ["w0", "w1"]
        assert made[1] == record("w1")
        assert [made.line(id) for id in made.ids()] == [1, 2]
        assert any((run.folder / "made" / "winners").iterdir())
        with pytest.raises(DataError, match="same"):
            run.dataset("twins", [record("same"), record("same", "other")])
        for place in (run.folder / "made" / "elsewhere", run.folder / "made"):
            if place.exists():
                place.rename(tmp_path / "moved")
            place.symlink_to(tmp_path)
            with pytest.raises(StorageError, match="is a link"):
                run.dataset("elsewhere", records(1))


seen: list[tuple[object, ...]] = []


@dataclass(frozen=True, kw_only=True)
class Look(Measure):
    """Measures, and looks at how far its stage is, as somebody outside would."""

    folder: str = ""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        path = Path(self.folder) / "progress.json"
        said = read_json(path) if path.exists() else {}
        seen.append(tuple(said.get(name) for name in ("stage", "items", "done")))
        return Measure.__call__(self, chunk)


@pytest.mark.parametrize(("every_s", "noted"), [(0.0, [(None,) * 3, ("look", 10, 4), ("look", 10, 8)]),
                                                (3600.0, [(None,) * 3] * 3)])  # fmt: skip
def test_how_far_a_stage_is_stands_in_its_folder_now_and_then_until_the_run_is_done(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: float, noted: list[object]
) -> None:
    monkeypatch.setattr(door, "EVERY_S", every_s)
    seen.clear()
    with life() as run:
        run.map("look", Look(folder=str(tmp_path / "run")), records(10))
        assert seen == noted
        run.finish(Dataset.of(records(10)), [Decision(f"r{n}", "keep", "kept: all") for n in range(10)])
        assert not (run.folder / "progress.json").exists()


def test_tables_grow_while_a_page_runs_and_start_empty_whenever_it_runs(life: Life) -> None:
    for _ in range(2):
        with life() as run:
            run.table("pairs", [{"round": 0, "weight": 0.5}])
            run.table("pairs", ({"round": n, "weight": 0.25, "note": "late"} for n in (1, 2)))
            run.table("nothing", [])
            run.finish(Dataset.of([]), [])
        table = pq.read_table(run.folder / "tables" / "pairs.parquet").to_pylist()
        assert table == [
            {"round": 0, "weight": 0.5, "note": None},
            {"round": 1, "weight": 0.25, "note": "late"},
            {"round": 2, "weight": 0.25, "note": "late"},
        ]
        assert pq.read_table(run.folder / "tables" / "nothing.parquet").num_rows == 0


def test_finishing_counts_decisions_and_writes_them_in_order(life: Life) -> None:
    data = Dataset.of(records(4))
    decisions = [
        Decision("r0", "keep", "kept: good"),
        Decision("r1", "drop", "dropped: bad"),
        Decision("r2", "replace", "replaced: better", ("r2",)),
        Decision("r2~draw-1", "create", "created: new", ("r2", "r3")),
        Decision("r3", "quarantine", "refused: no"),
    ]
    with life() as run:
        counts = run.finish(data, decisions)
    assert counts == {"keep": 1, "drop": 1, "replace": 1, "create": 1, "quarantine": 1}
    written = pq.read_table(run.folder / "decisions.parquet").to_pylist()
    assert written == [
        {"record_id": d.record_id, "action": d.action, "reason": d.reason, "parents": list(d.parents)}
        for d in decisions
    ]


def test_decisions_are_written_a_few_at_a_time_and_compared_with_what_was_written(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "ROWS", 3)
    data = Dataset.of(records(8))
    decisions = [Decision(r.id, "keep", f"kept: {n}", (r.id,) * (n % 3)) for n, r in enumerate(data)]
    with life() as run:
        run.finish(data, decisions)
    path = run.folder / "decisions.parquet"
    assert pq.ParquetFile(path).num_row_groups == 3
    assert [row["reason"] for row in pq.read_table(path).to_pylist()] == [d.reason for d in decisions]

    read = pq.ParquetFile.read_row_group
    for wrong in (lambda table: table.slice(1), lambda table: table.take([1, 0, 2][: table.num_rows])):
        path.unlink(missing_ok=True)
        monkeypatch.setattr(
            pq.ParquetFile,
            "read_row_group",
            lambda file, number, wrong=wrong, **options: wrong(read(file, number, **options)),
        )
        with life() as run, pytest.raises(StorageError, match="reads back other than it was written"):
            run.finish(data, decisions)
        assert not path.exists()


@pytest.mark.parametrize(("decided", "said"), [
    (["r0", "r1"], 'record "r2" has 0 decisions; every record must have exactly one.'),
    (["r0", "r1", "r2", "r1"], 'record "r1" has 2 decisions; every record must have exactly one.'),
    (["r0", "r1", "r2", "who"], '"who" was decided on and is no record of the input; a new record is "create".'),
    ([], 'record "r0" has 0 decisions; every record must have exactly one.'),
    (["a", "b", "c"], 'record "r0" has 0 decisions; every record must have exactly one.'),
    (["r0", "r1", "r2", ""], '"" was decided on and is no record of the input; a new record is "create".'),
])  # fmt: skip
def test_every_record_has_exactly_one_decision(life: Life, decided: list[str], said: str) -> None:
    with life() as run, pytest.raises(RunError) as refusal:
        run.finish(Dataset.of(records(3)), [Decision(id, "drop", "dropped: all") for id in decided])
    assert str(refusal.value) == said
    assert not (run.folder / "decisions.parquet").exists()


def test_a_record_that_is_only_said_to_be_new_has_no_decision(life: Life) -> None:
    with (
        life() as run,
        pytest.raises(RunError, match=r'^record "r0" has 0 decisions; every record must have exactly one'),
    ):
        run.finish(Dataset.of(records(2)), [Decision(f"r{n}", "create", "created: all") for n in range(2)])


def test_without_an_input_every_decision_is_on_something_new(life: Life) -> None:
    with life() as run, pytest.raises(RunError, match=r'^"r0" was decided on and is no record of the input'):
        run.finish(None, [Decision("r0", "keep", "kept: all")])
    with life() as run:
        assert run.finish(None, [Decision("r0", "create", "created: all")]) == {"create": 1}


def test_what_cannot_be_written_into_a_run_s_folder_names_the_place(life: Life) -> None:
    with life() as run:
        (run.folder / "made").write_text("no folder")
        with pytest.raises(StorageError) as refusal:
            run.dataset("winners", records(1))
        assert str(refusal.value).startswith(f"{run.folder / 'made' / 'winners'}: ")
        (run.folder / "progress.json").mkdir()
        with pytest.raises(StorageError) as refusal:
            run.finish(Dataset.of([]), [])
        assert str(refusal.value).startswith(f"{run.folder}: ")


def test_a_folder_that_cannot_be_made_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(CannotCreate, match=r"cannot be written \(.+\); use another folder\.$"),
            Run(folder, Local()),
        ):
            raise AssertionError("a run in a file")


def test_a_folder_that_cannot_be_opened_is_not_left_locked(life: Life, tmp_path: Path) -> None:
    with life():
        pass
    database = tmp_path / "run" / "state.db"
    sound = database.read_bytes()
    database.write_bytes(b"this is no database, whatever its name says" * 100)
    kept = life()
    with pytest.raises(StorageError, match=r"check the disk and start again\.$"), kept:
        raise AssertionError("a damaged folder was opened")
    database.write_bytes(sound)
    with life():
        pass


def test_only_its_owner_may_read_a_run(life: Life) -> None:
    with life() as run:
        assert run.folder.stat().st_mode & 0o777 == 0o700


def test_many_kills_leave_no_rubbish_in_the_folder(life: Life) -> None:
    with life() as run:
        run.map("measure", Measure(), records(3))
        run.finish(Dataset.of(records(3)), all_kept(records(3)))
    names = sorted(str(p.relative_to(run.folder)) for p in run.folder.rglob("*") if not p.name.startswith("state.db"))
    assert names == [
        "LOCK", "decisions.parquet", "holder.json", "stages", "stages/measure", "stages/measure/_SUCCESS.json",
        "stages/measure/part-000000.parquet",
    ]  # fmt: skip
    for name in (
        "holder.json",
        "decisions.parquet",
        "stages/measure/_SUCCESS.json",
        "stages/measure/part-000000.parquet",
    ):
        path = run.folder / name
        path.with_name(f"{path.name}.tmp").write_bytes(b"left by a kill")
    with life() as run:
        run.map("measure", Measure(), records(3))
        run.finish(Dataset.of(records(3)), all_kept(records(3)))
    assert not list(run.folder.rglob("*.tmp"))
