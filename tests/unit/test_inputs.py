"""Which files an input means, in which order, by what digest; and what is written back of several."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesift import DataError, RecipeError, ResumeError, ScriptedModel, read_dataset, recipe_for, run_recipe
from tunesift.inputs import file_digest, input_digest, input_files, path_as_text, path_of_text

EVERYTHING = ["keep.kind=random", "keep=100%"]


def rows(begin: int, end: int, **more: Any) -> list[dict[str, Any]]:
    return [{"instruction": f"Question {n}?", "output": f"Answer {n}.", **more} for n in range(begin, end)]


def write(path: Path, content: list[Any]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def shards(folder: Path, sizes: tuple[int, ...] = (3, 2, 4)) -> Path:
    """A folder of files of lines, in the order of their names, made in another."""
    total = 0
    for number, size in sorted(enumerate(sizes), reverse=True):
        total = sum(sizes[:number])
        write(folder / f"part-{number}.jsonl", rows(total, total + size))
    return folder


@pytest.mark.parametrize("pattern", ["set", "set/*.jsonl", "set/part-?.jsonl", "s[e]t/part-*", "**/*.jsonl"])
def test_files_are_read_in_the_order_of_their_names(pattern: str, tmp_path: Path) -> None:
    shards(tmp_path / "set")
    (tmp_path / "set" / "_SUCCESS").touch()
    (tmp_path / "set" / ".part-9.jsonl.crc").touch()
    data = read_dataset(tmp_path / pattern)
    assert [r.response for r in data] == [f"Answer {n}." for n in range(9)]
    assert data.source
    assert data.source.files == ("part-0.jsonl", "part-1.jsonl", "part-2.jsonl")
    assert data.source.bytes == sum(f.stat().st_size for f in (tmp_path / "set").glob("part*"))
    assert [(data.file(id), data.line(id)) for id in data.ids()] == [
        (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (2, 4)
    ]  # fmt: skip


def test_places_name_the_file_below_the_folder_that_all_share(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "set" / name / "x.jsonl", [*rows(0, 2, from_=name), {"instruction": name}])
    data = read_dataset(tmp_path / "set" / "*" / "x.jsonl")
    assert data.source
    assert [str(b.place).partition(" ")[0] for b in data.source.broken] == ["a/x.jsonl:3", "b/x.jsonl:3"]


def test_an_id_that_stands_in_two_files_is_found(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a.jsonl", rows(0, 2, id="a")[:1] + rows(1, 2, id="b"))
    write(tmp_path / "set" / "b.jsonl", rows(2, 3, id="c") + rows(3, 4, id="b"))
    with pytest.raises(DataError, match=r"^E208 b.jsonl:2: an id stands more than once, b;"):
        read_dataset(tmp_path / "set")
    source = read_dataset(tmp_path / "set", duplicate_ids="first").source
    assert source
    assert [str(b.place) for b in source.broken] == ["b.jsonl:2"]


def test_a_file_with_the_signs_of_a_pattern_in_its_name_is_that_file(tmp_path: Path) -> None:
    write(tmp_path / "a1.jsonl", rows(0, 3))
    odd = write(tmp_path / "a[1].jsonl", rows(0, 2))
    assert input_files(odd) == (odd,)
    assert len(read_dataset(odd)) == 2


def test_files_of_several_kinds_are_refused(tmp_path: Path) -> None:
    shards(tmp_path / "set")
    pq.write_table(pa.Table.from_pylist(rows(0, 3)), tmp_path / "set" / "x.parquet")
    with pytest.raises(DataError, match=r"^E116 .*: holds files of several kinds \(jsonl, parquet\); give a pattern"):
        read_dataset(tmp_path / "set")
    assert len(read_dataset(tmp_path / "set" / "*.parquet")) == 3


@pytest.mark.parametrize(
    ("path", "says"),
    [("s3://bucket/a.jsonl", "E101 .* is an address"), ("https://x.org/a.json", "E101 .* is an address"),
     ("not/there.jsonl", "E101 .* there is no such file"), ("*/nothing.jsonl", "E101 .* no file fits this pattern")],
)  # fmt: skip
def test_what_is_no_file_is_refused_in_one_sentence(path: str, says: str) -> None:
    with pytest.raises(DataError, match=f"^{says}"):
        read_dataset(path)


def test_one_file_is_known_by_its_own_digest_wherever_it_lies(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(0, 3))
    assert input_digest(path) == file_digest(path)
    first, second = shards(tmp_path / "set"), shards(tmp_path / "elsewhere")
    digests = {input_digest(first), input_digest(second), input_digest(first / "*.jsonl")}
    assert len(digests) == 1
    (second / "part-1.jsonl").rename(second / "part-9.jsonl")
    assert input_digest(second) not in digests


def thousand(folder: Path) -> Path:
    for number in range(1_000):
        write(folder / f"{number:04}.jsonl", rows(number, number + 1))
    return folder


@pytest.mark.parametrize("number", [0, 499, 999])
def test_one_changed_byte_in_any_of_a_thousand_files_is_refused_before_the_first_call(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for("select", thousand(tmp_path / "set"), tmp_path / "out.jsonl", ["scorer.student.kind=scripted"])
    assert run_recipe(recipe).counts["in"] == 1_000
    (recipe.run_folder / "result.json").unlink()
    changed = tmp_path / "set" / f"{number:04}.jsonl"
    state = changed.stat()
    changed.write_text(changed.read_text().replace("Answer", "answer"))
    os.utime(changed, ns=(state.st_atime_ns, state.st_mtime_ns))
    monkeypatch.setattr(ScriptedModel, "loss", lambda *_: pytest.fail("the model was called"))
    with pytest.raises(ResumeError, match="has changed since the run began"):
        run_recipe(recipe)


@pytest.mark.slow
def test_one_changed_byte_in_every_25th_of_a_thousand_files_changes_the_digest(tmp_path: Path) -> None:
    folder = thousand(tmp_path / "set")
    seen = {input_digest(folder)}
    for path in sorted(folder.iterdir())[::25]:
        content = path.read_bytes()
        path.write_bytes(content.replace(b"A", b"B", 1))
        seen.add(input_digest(folder))
        path.write_bytes(content)
    assert len(seen) == 41


def test_rows_of_several_files_of_lines_are_written_back_byte_by_byte(tmp_path: Path) -> None:
    shards(tmp_path / "set")
    run_recipe(recipe_for("select", tmp_path / "set", tmp_path / "out.jsonl", EVERYTHING))
    whole = b"".join(p.read_bytes() for p in sorted((tmp_path / "set").iterdir()))
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    run_recipe(recipe_for("score", tmp_path / "set", tmp_path / "scored.jsonl", ["scorers.0.student.kind=scripted"]))
    assert [r["output"] for r in map(json.loads, (tmp_path / "scored.jsonl").read_text().splitlines())] == [
        f"Answer {n}." for n in range(9)
    ]


def test_rows_of_several_parquet_files_are_written_back_cell_by_cell(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    table = pa.Table.from_pylist(rows(0, 3_000)).append_column("x", pa.array(range(3_000), pa.int16()))
    for number, (begin, size) in enumerate([(0, 1_500), (1_500, 1), (1_501, 1_499)]):
        pq.write_table(table.slice(begin, size), tmp_path / "set" / f"{number}.parquet")
    run_recipe(recipe_for("select", tmp_path / "set" / "*.parquet", tmp_path / "out.parquet", EVERYTHING))
    assert pq.read_table(tmp_path / "out.parquet").equals(table)
    recipe = recipe_for("select", tmp_path / "set", tmp_path / "tenth.parquet", ["keep.kind=random", "keep=10%"])
    run_recipe(recipe)
    kept = pq.read_table(tmp_path / "tenth.parquet")
    assert kept.num_rows == 300
    assert kept.equals(table.take(kept.column("x")))


@pytest.mark.parametrize("name", ["a\udcff.jsonl", "a\\udcff", "a\\u005cudcff\udc80", "plain", "a\\b", "\\\\u005c"])
def test_a_path_of_any_name_is_written_down_as_utf_8_and_read_back(name: str) -> None:
    path_as_text(Path(name)).encode()
    assert path_of_text(path_as_text(Path(name))) == Path(name)


def test_an_output_whose_name_is_not_utf_8_is_refused_and_an_input_is_not(tmp_path: Path) -> None:
    odd = os.fsdecode(b"a\xff.parquet")
    with (tmp_path / odd).open("wb") as file:
        pq.write_table(pa.Table.from_pylist(rows(0, 9)), file)
    with pytest.raises(
        RecipeError, match=r"^output: .*a\\udcff.parquet is not valid UTF-8, which Arrow needs; rename it"
    ):
        recipe_for("select", tmp_path / odd, tmp_path / "x" / odd, EVERYTHING)
    run_recipe(recipe_for("select", tmp_path / odd, tmp_path / "b.parquet", EVERYTHING))
    assert pq.read_table(tmp_path / "b.parquet").to_pylist() == rows(0, 9)
