"""A dataset: ordered, immutable, found by id, on disk."""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from tunesift import DataError, Dataset, Message, Preference, Record, read_dataset
from tunesift.datasets import BATCH, DatasetWriter, Source, open_dataset


def made(number: int) -> Record:
    messages = (Message("user", f"Question {number}?"), Message("assistant", f"Answer {number}."))
    return Record(f"r{number}", messages, {"number": number})


SMALL = Dataset.of(made(n) for n in range(10))
LARGE = 5_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Dataset[Record]:
    path = tmp_path_factory.mktemp("large") / "a.jsonl"
    rows = (
        {"id": f"r{n}", "instruction": f"Question {n}?", "output": f"Answer {n}.", "number": n} for n in range(LARGE)
    )
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return read_dataset(path)


def test_records_of_many_batches_come_in_order_and_are_found_by_id(large: Dataset[Record]) -> None:
    assert len(large) == LARGE > 4 * BATCH
    assert list(large.ids()) == [r.id for r in large] == [f"r{n}" for n in range(LARGE)]
    for number in random.Random(1).sample(range(LARGE), 300):
        assert large[number] == large.by_id(f"r{number}") == made(number)
        assert large.line(f"r{number}") == number + 1
        assert json.loads(large.raw(f"r{number}"))["number"] == number


def test_a_dataset_is_a_sequence(large: Dataset[Record]) -> None:
    assert large[-1].id == f"r{LARGE - 1}"
    assert made(7) in SMALL
    assert SMALL.index(made(7)) == 7
    with pytest.raises(IndexError):
        SMALL[10]


def test_a_missing_id_is_a_key_error(large: Dataset[Record]) -> None:
    for id in ("r5000", "", "r0 ", "R0"):
        with pytest.raises(KeyError):
            large.by_id(id)
        assert large.line(id) is None
        assert large.raw(id) == b""


@pytest.mark.parametrize(
    "part", [slice(2, 5), slice(None, None, 3), slice(None, None, -1), slice(8, 2, -2), slice(4, 4)]
)
def test_a_slice_shows_what_a_list_would_show(part: slice) -> None:
    shown = SMALL[part]
    wanted = [made(n) for n in range(10)][part]
    assert list(shown) == wanted
    assert [r.id for r in wanted] == list(shown.ids())
    for number in range(10):
        if made(number) in wanted:
            assert shown.by_id(f"r{number}") == made(number)
        else:
            with pytest.raises(KeyError):
                shown.by_id(f"r{number}")


def test_batches_are_consecutive_and_cover_everything(large: Dataset[Record]) -> None:
    parts = list(large.batches(999))
    assert [len(p) for p in parts] == [999] * 5 + [5]
    assert [id for p in parts for id in p.ids()] == list(large.ids())


def test_ids_of_any_part_are_those_of_its_rows(large: Dataset[Record]) -> None:
    assert list(large.ids()) == [r.id for r in large] == [f"r{n}" for n in range(LARGE)]
    for part in (large[BATCH - 1 : BATCH + 1], large[3:3], large[-2:], large[::7], large[::-1][:9], large[1:][BATCH:]):
        assert list(part.ids()) == [r.id for r in part]
    assert [r.id for r in large[10:20].where(n % 3 == 0 for n in range(10))] == ["r10", "r13", "r16", "r19"]
    with pytest.raises(ValueError, match="iterator too short"):
        large.where([True])


def test_only_some_ids_stay_in_order_and_can_be_narrowed_again(large: Dataset[Record]) -> None:
    odd = large.only({f"r{n}" for n in range(1, LARGE, 2)} | {"stranger"})
    assert len(odd) == LARGE // 2
    assert list(odd.only({"r9", "r3", "r4"}).ids()) == ["r3", "r9"]
    assert odd.by_id("r4999").id == "r4999"
    with pytest.raises(KeyError):
        odd.by_id("r4998")
    assert odd[::-1].by_id("r1") == made(1)
    assert list(odd[10:12].ids()) == ["r21", "r23"]
    assert odd.left_out()[:3] == [0, 2, 4]
    assert odd.source == large.source


def test_a_dataset_of_objects_refuses_two_of_one_id() -> None:
    assert len(Dataset.of([])) == 0
    with pytest.raises(DataError, match='two records have the id "r1"'):
        Dataset.of([made(1), made(2), made(1)])


def test_preferences_are_kept_as_preferences() -> None:
    pair = Preference(
        "p", (Message("user", "Q", ("a.png",)),), Message("assistant", "A"), Message("assistant", "B"), 0.5, {"x": [1]}
    )
    assert Dataset.of([pair])[0] == Dataset.of([pair]).by_id("p") == pair


def test_texts_survive_whatever_they_hold() -> None:
    texts = [
        "\x00",
        "\u2028\u2029\x85",
        "\U0001f468\u200d\U0001f469",
        "\u202eabc",
        "e\u0301é",
        "\r\n\t",
        "",
        "�",
        "\ue000",
    ]
    records = [
        Record(f"{n}{text}", (Message("user", text), Message("assistant", text)), {text: text})
        for n, text in enumerate(texts)
    ]
    data = Dataset.of(records)
    assert list(data) == records
    assert [data.by_id(r.id) for r in records] == records


def test_the_rows_are_mapped_from_disk_and_not_held(large: Dataset[Record]) -> None:
    before = pa.total_allocated_bytes()
    assert sum(len(r.response) for r in large) > LARGE
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_a_written_dataset_can_be_opened_again(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path)
    for number in range(BATCH + 10):
        writer.add(made(number), number + 1, b"{}")
    data = writer.finish(Record, lambda id, row, line: True)
    assert data.source is None
    source = read_source(tmp_path)
    again = open_dataset(tmp_path, Record, source, [3])
    assert list(again.ids()) == [f"r{n}" for n in range(BATCH + 10) if n != 3]
    assert again.left_out() == [3]
    with pytest.raises(KeyError):
        again.by_id("r3")


def read_source(folder: Path) -> Source:
    path = folder / "a.jsonl"
    path.write_text('{"prompt": "x", "completion": "y"}\n')
    source = read_dataset(path).source
    assert source
    return source


def temporary_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("tunesift-*"))


def test_the_temporary_folder_goes_with_the_dataset_and_its_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x", "completion": "y"}\n' * 3)
    data = read_dataset(path)
    (folder,) = temporary_folders()
    part = data[1:]
    del data
    gc.collect()
    assert folder.exists()
    assert len(list(part)) == 2
    del part
    gc.collect()
    assert not folder.exists()


def test_no_temporary_folder_stays_behind_when_reading_fails_or_the_program_ends(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "good.jsonl").write_text('{"prompt": "x", "completion": "y"}\n')
    script = (
        "import sys, tempfile; from tunesift import *\n"
        "kept = read_dataset('good.jsonl')\n"
        "try: read_dataset('bad.jsonl')\n"
        "except DataError: print(len(list(__import__('pathlib').Path(tempfile.gettempdir()).glob('tunesift-*'))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"
    assert not list(tmp_path.glob("tunesift-*"))
