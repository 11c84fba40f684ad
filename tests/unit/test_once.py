"""What does `Run.once` promise of a training? Once, of the same settings and data, gone on with where it was left off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from harness.door import Measure
from harness.training import record
from tunesift import INCIDENTAL, Dataset, Run, Settings
from tunesift.console import LineProgress
from tunesift.errors import ResumeError, RunError, Stopped
from tunesift.running.fsio import read_json, write_json
from tunesift.running.local import Local
from tunesift.running.progress import Progress
from tunesift.running.sealing import COMPLETE, newest, seal, sealed, spoilt
from tunesift.telling import told_run

LIVES: list[str] = []
"""What trained, in order."""


@pytest.fixture(autouse=True)
def _no_lives() -> None:
    LIVES.clear()


@dataclass(frozen=True, kw_only=True)
class Copying(Settings):
    """Trains a model that is its data, in steps that it writes down."""

    kind: str = "copying"
    steps: int = 4
    speed: Annotated[int, INCIDENTAL] = 1
    dies_at: Annotated[int, INCIDENTAL] = 0
    leaves: Annotated[bool, INCIDENTAL] = True

    def __call__(self, data: Dataset[Any], into: Path, watch: Any, /) -> None:
        begin = newest(into, "checkpoint")
        done = int(begin.name.split("-")[1]) if begin else 0
        watch.at(done, self.steps)
        for step in range(done + 1, self.steps + 1):
            LIVES.append(f"step {step}")
            place = into / f"checkpoint-{step}"
            place.mkdir()
            (place / "weights").write_text(str(step))
            if step == self.dies_at:
                raise RuntimeError("killed")
            seal(place, {"step": step})
            watch.at(step, self.steps)
            if watch.stopped:
                return
        if self.leaves:
            (into / "model").mkdir(exist_ok=True)
            (into / "model" / "weights").write_text(" ".join(data.ids()))
            seal(into / "model", {"steps": self.steps}, digests=True)


@dataclass
class Heard(Progress):
    """What was said of a stage."""

    said: list[tuple[Any, ...]] = field(default_factory=list)

    def begin(self, stage: str, total: int, done: int) -> None:
        self.said.append(("begin", stage, total, done))

    def advance(self, stage: str, items: int, failed: int) -> None:
        self.said.append(("advance", items))

    def end(self, stage: str) -> None:
        self.said.append(("end", stage))


def some(count: int = 3) -> Dataset[Any]:
    return Dataset.of([record(f"r{n}") for n in range(count)])


@contextmanager
def opened(folder: Path, progress: Progress | None = None) -> Iterator[Run]:
    with Run(folder, Local(), progress=progress or Progress()) as run:
        yield run


def test_same_stage_same_data_the_finished_checkpoint_without_work(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        first = run.once("tune", Copying(), some())
    assert len(LIVES) == 4
    with opened(tmp_path / "run") as run:
        again = run.once("tune", Copying(speed=9), some())
        assert [(s.stage, s.worked) for s in run.stages] == [("tune", 0)]
    assert again == first
    assert len(LIVES) == 4
    assert (again.path / "weights").read_text() == "r0 r1 r2"


def test_what_was_left_off_goes_on_behind_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    heard = Heard()
    with opened(tmp_path / "run") as run, pytest.raises(RuntimeError, match="killed"):
        run.once("tune", Copying(dies_at=3), some())
    assert (tmp_path / "run/checkpoints/tune/checkpoint-3/weights").exists()
    with opened(tmp_path / "run", heard) as run:
        run.once("tune", Copying(), some())
        assert [(s.items, s.worked) for s in run.stages] == [(4, 2)]
    assert LIVES == ["step 1", "step 2", "step 3", "step 3", "step 4"]
    assert heard.said == [("begin", "tune", 4, 2), ("advance", 1), ("advance", 1), ("end", "tune")]


def test_other_settings_are_refused_with_the_field_and_both_values(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        run.once("tune", Copying(), some())
        with pytest.raises(ResumeError, match=r'stage "tune" was started with steps=4; it is now 5'):
            run.once("tune", Copying(steps=5), some())


def test_other_records_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        run.once("tune", Copying(), some())
        with pytest.raises(ResumeError, match=r'stage "tune" was started on other records'):
            run.once("tune", Copying(), some(2))


def test_the_digest_is_of_settings_and_data_and_not_of_the_place(tmp_path: Path) -> None:
    found = {}
    for name, tuner, data in (("a", Copying(), some()), ("b", Copying(speed=2), some()),
                              ("c", Copying(steps=5), some()), ("d", Copying(), some(4))):  # fmt: skip
        with opened(tmp_path / name) as run:
            found[name] = run.once("tune", tuner, data).digest
    assert found["a"] == found["b"]
    assert len(set(found.values())) == 3


def test_a_run_that_is_to_stop_keeps_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        run.stop.ask()
        with pytest.raises(Stopped, match="stopped when asked to"):
            run.once("tune", Copying(), some())
    assert LIVES == ["step 1"]
    with opened(tmp_path / "run") as run:
        run.once("tune", Copying(), some())
    assert LIVES == ["step 1", "step 2", "step 3", "step 4"]


def test_who_looks_at_a_run_that_was_stopped_sees_the_update_that_was_saved(tmp_path: Path) -> None:
    """However long ago the folder was last noted in: the first update is made within five seconds."""
    with opened(tmp_path / "run") as run:
        run.stop.ask()
        with pytest.raises(Stopped):
            run.once("tune", Copying(), some())
    said = read_json(tmp_path / "run/progress.json")
    assert (said["stage"], said["done"], said["items"]) == ("tune", 1, 4)
    write_json(tmp_path / "run/run.json", {"run_id": "x", "created": "now", "input": {"path": ""},
               "recipe": {"output": "y"}, "settings": {"method": {}}})  # fmt: skip
    *_, training, _, line = told_run(tmp_path / "run", as_json=False).splitlines()
    assert training == "  training tune: 1 update done"
    assert line.endswith(": 1 of 4 updates of training tune")


def test_a_training_is_told_in_updates_and_the_stage_after_it_in_items(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run(tmp_path / "run", Local(), progress=LineProgress()) as run:
        run.once("tune", Copying(), some())
        run.map("measure", Measure(), some())
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "tune: 4 updates"
    assert said[1].startswith("tune: done, 4 updates in ")
    assert said[2] == "measure: 3 items"


def test_a_tuner_that_leaves_no_model_is_at_fault(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run, pytest.raises(RunError, match="the tuner left no model"):
        run.once("tune", Copying(leaves=False), some())


def test_a_training_that_is_no_longer_asked_for_is_refused_at_the_end(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        run.once("tune", Copying(), some())
    with opened(tmp_path / "run") as run, pytest.raises(ResumeError, match='holds the stage "tune"'):
        run.finish(None, [])


@pytest.mark.parametrize("spoil", ["missing", "short", "unsealed", "torn"])
def test_a_checkpoint_that_is_not_whole_is_passed_over_and_removed(tmp_path: Path, spoil: str) -> None:
    for step in (1, 2):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        (place / "weights").write_bytes(b"x" * 100)
        seal(place, {"step": step})
    assert newest(tmp_path, "checkpoint") == tmp_path / "checkpoint-2"
    last = tmp_path / "checkpoint-2"
    {
        "missing": lambda: (last / "weights").unlink(),
        "short": lambda: (last / "weights").write_bytes(b"x" * 99),
        "unsealed": lambda: (last / COMPLETE).unlink(),
        "torn": lambda: (last / COMPLETE).write_bytes((last / COMPLETE).read_bytes()[:-5]),
    }[spoil]()
    assert newest(tmp_path, "checkpoint") == tmp_path / "checkpoint-1"
    assert not last.exists()


def test_the_largest_number_is_the_newest_not_the_last_by_name(tmp_path: Path) -> None:
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        seal(tmp_path / f"checkpoint-{step}", {})
    assert newest(tmp_path, "checkpoint") == tmp_path / "checkpoint-10"


def test_a_folder_that_is_no_checkpoint_of_ours_is_left_alone(tmp_path: Path) -> None:
    for name in ("checkpoint-3", "checkpoint-best"):
        (tmp_path / name).mkdir()
    seal(tmp_path / "checkpoint-3", {})
    assert newest(tmp_path, "checkpoint") == tmp_path / "checkpoint-3"
    assert (tmp_path / "checkpoint-best").exists()


def test_a_changed_byte_of_a_model_is_found(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        model = run.once("tune", Copying(), some()).path
    assert spoilt(model) == []
    (model / "weights").write_text("r0 r1 r3")
    assert spoilt(model) == ["weights"]
    assert sealed(model) is not None  # of the same size


def test_a_model_whose_file_is_lost_is_trained_again(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        model = run.once("tune", Copying(), some()).path
    (model / "weights").unlink()
    with opened(tmp_path / "run") as run:
        assert (run.once("tune", Copying(), some()).path / "weights").exists()


def test_failures_are_not_tried_again_where_a_model_was_trained_without_them(tmp_path: Path) -> None:
    """Its data would be others, and so would all that the model was asked: the folder would never go on."""
    rows = Dataset.of([record("good"), record("bad", response="refuse")])
    with opened(tmp_path / "run") as run:
        measured = run.map("measure", Measure(), rows)
        run.once("tune", Copying(), rows.only(measured.good()))
    with (
        opened(tmp_path / "run") as run,
        pytest.raises(RunError, match=r"tune was trained on .* choose another output"),
    ):
        run.retry({"refused"})
    with opened(tmp_path / "run") as run:
        assert run.retry({"unanswered"}) == 0
        measured = run.map("measure", Measure(), rows)
        run.once("tune", Copying(), rows.only(measured.good()))
    assert len(LIVES) == 4
