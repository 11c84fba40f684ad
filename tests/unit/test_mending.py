"""Does a damaged run's folder become a whole one, and are failures tried again, without paying twice for the rest?"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from tunesift.running import journal as storage
from tunesift.running.fsio import digest, read_json, write_json
from tunesift.running.locking import looked_at
from tunesift.running.mending import Repaired, repair, verify
from tunesift.settings import Json

worked: list[str] = []
ill: set[str] = set()
"""Ids whose first stage fails, as long as they stand here."""

deadly: set[str] = set()
"""Ids at which the model goes away."""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART_ROWS", 8)
    worked.clear()
    ill.clear()
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
        return [Failure("unanswered", "nobody was there") if r.id in ill else r.response.upper() for r in chunk]


def page(folder: Path, rows: int = 30, sick: Sequence[int] = ()) -> tuple[list[str], dict[str, str | None]]:
    """Two stages, the second made of what the first gave, then a decision each; who was worked on, and what came."""
    worked.clear()
    ill.update(f"r{n}" for n in sick)
    data = Dataset.of(Record(f"r{n}", (Message("user", "say"), Message("assistant", f"word {n}"))) for n in range(rows))
    with Run(folder, Local(chunk=5), max_failures=1.0) as run:
        first = run.map("first", Shout(), data)
        again = [
            Record(f"{r.id}~", (Message("user", "say"), Message("assistant", said)))
            for r in data if isinstance(said := first[r.id], str)
        ]  # fmt: skip
        second = run.map("second", Shout(), again)
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
