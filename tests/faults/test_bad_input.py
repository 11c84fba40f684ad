"""The corpus of bad input, by number (R41 of docs/reliability.md): each entry gives its listed result and no other.

Its 76 entries are the cases of harness/corpus.py, the functions that have a number in their name, and those of test_bad_images.py.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.corpus import CASES, GOOD, LINES, Case, among, assistant, file, line, user
from tunesift import (
    DataError,
    Failure,
    RecipeError,
    Record,
    ScriptedModel,
    Span,
    TargetLoss,
    read_dataset,
    recipe_for,
    run_recipe,
)
from tunesift import datasets as datasets_module
from tunesift.console import told
from tunesift.files import CUT
from tunesift.notes import NUL
from tunesift.reading import Reading, read
from tunesift.tables import BLANK


def of(result: str) -> list[Any]:
    return [pytest.param(case, id=str(case)) for case in CASES if case.result.startswith(result)]


@pytest.mark.parametrize("case", of("F"))
def test_the_file_is_refused_before_anything_is_done(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    with pytest.raises(DataError) as caught:
        run_recipe(recipe_for("select", path, tmp_path / "out.jsonl", ["keep.kind=random"]))
    message = str(caught.value)
    assert message.startswith(f"{case.result[2:]} ")
    assert case.says in message
    assert message.isprintable()
    assert len(message) <= 400
    assert not (tmp_path / "out.jsonl.run").exists(), "a second start must not meet half a run"


@pytest.mark.parametrize("case", of("Q"))
def test_the_row_is_set_aside_and_its_neighbours_are_read(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    data = read(path, Record, Reading(**case.how))
    assert data.source
    assert data.source.notes == case.notes
    assert [b.code for b in data.source.broken] == [case.result[2:]] * case.bad
    assert len(data) + case.bad == data.source.rows
    wanted = [row["output"] for row in GOOD] if len(data) == len(GOOD) else ["y"] * len(data)
    assert [r.response for r in data] == wanted if case.number != 42 else {r.response for r in data} == {"y"}
    content = path.read_bytes()
    for broken in data.source.broken:
        assert case.says in broken.message
        assert broken.message.isprintable()
        assert len(broken.message) <= 200
        assert len(broken.raw) <= 64 * 2**10
        assert content[broken.place.byte :].startswith(broken.raw)
        assert content.count(b"\n", 0, broken.place.byte) == broken.place.line - 1


@pytest.mark.parametrize("case", of("A"))
def test_the_file_is_read_whole_and_comes_back_as_it_was(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    data = read(path, Record, Reading(**case.how))
    lines = [row.strip() for row in path.read_bytes().replace(b"\xef\xbb\xbf", b"").split(b"\n") if row.strip()]
    assert data.source
    assert not data.source.broken
    assert data.source.notes == case.notes
    assert [data.raw(id) for id in data.ids()] == lines
    if case.result == "A":
        assert [r.response for r in data] == [json.loads(row)["output"] for row in lines]
    else:
        assert [len(r.messages) for r in data] == [len(json.loads(row)["messages"]) for row in lines]


@pytest.mark.parametrize("case", [param for param in of("A") if param.values[0].number > 70])
def test_the_file_is_selected_from_with_nothing_set_free(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    recipe = ["keep.kind=random", "keep=100%"]
    summary = run_recipe(recipe_for("select", path, tmp_path / "out.jsonl", recipe))
    assert summary.output.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out.jsonl", "out.jsonl.run"])
    assert summary.notes == case.notes
    again = run_recipe(recipe_for("select", path, tmp_path / "out.jsonl", recipe))
    assert (again.worked, again.notes) == (0, case.notes)
    (tmp_path / "out.jsonl.run" / "result.json").unlink()
    assert run_recipe(recipe_for("select", path, tmp_path / "out.jsonl", recipe)).notes == case.notes
    assert all(part.isprintable() for part in told(summary).split("\n"))


def test_20_a_line_without_an_end_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES + b"x")
    with path.open("r+b") as sparse:
        sparse.seek(300 * 2**20, os.SEEK_END)
        sparse.write(b"\n" + LINES)
    tracemalloc.start()
    try:
        data = read_dataset(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data.source
    assert [b.code for b in data.source.broken] == ["E401"]
    assert len(data) == 2 * len(GOOD)
    assert peak < 70 * 2**20


def test_39_ids_that_stand_twice_can_be_resolved(tmp_path: Path) -> None:
    path = file(b"".join(line({**GOOD[0], "id": f"i{n % 3}"}) + b"\n" for n in range(7)))(tmp_path)
    assert list(read_dataset(path, duplicate_ids="first").ids()) == ["i0", "i1", "i2"]
    assert list(read_dataset(path, duplicate_ids="suffix").ids()) == ["i0", "i1", "i2", "i0#2", "i1#2", "i2#2", "i0#3"]


def test_49_columns_of_many_types_are_carried_along(tmp_path: Path) -> None:
    columns = {
        "prompt": pa.array(["x", "y"]).dictionary_encode(), "completion": pa.array(["x", "y"], pa.large_string()),
        "view": pa.array(["x", "y"], pa.string_view()), "list": pa.array([[1], None]), "struct": pa.array([{"x": 1}, None]),
        "map": pa.array([[("x", 1)], []], pa.map_(pa.string(), pa.int64())),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    run_recipe(recipe_for("select", tmp_path / "a.parquet", tmp_path / "b.parquet", ["keep.kind=random", "keep=100%"]))
    assert pq.read_table(tmp_path / "b.parquet").equals(pq.read_table(tmp_path / "a.parquet"))


@pytest.mark.parametrize("kept_time", [False, True])
def test_63_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_time: bool
) -> None:
    path = file(LINES)(tmp_path)
    sound = json.JSONDecoder.raw_decode
    changed: list[bool] = []

    def changing(self: json.JSONDecoder, *what: Any) -> Any:
        if not changed:
            changed.append(True)
            state = path.stat()
            path.write_bytes(LINES.replace(b"Answer 7", b"Answer 8") if kept_time else LINES + LINES)
            if kept_time:
                os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        return sound(self, *what)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", changing)
    with pytest.raises(DataError, match=r"^E118 .* the file changed while it was read"):
        read(path, Record, Reading())


@pytest.mark.parametrize("output", ["a.jsonl", "./x/../a.jsonl", "link.jsonl"])
def test_64_the_output_is_not_the_input(tmp_path: Path, output: str) -> None:
    path = file(LINES)(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "link.jsonl").symlink_to(path)
    with pytest.raises(RecipeError, match=r"^E701 output: .* is the input itself"):
        run_recipe(recipe_for("select", path, tmp_path / output, ["keep.kind=random"]))
    assert path.read_bytes() == LINES


@pytest.mark.parametrize(
    ("input", "output", "fits"),
    [
        ("set", "set/out.jsonl", False), ("set", "set/deep/out.jsonl", False), ("set", "link/out.jsonl", False),
        ("set/*.jsonl", "set/out.jsonl", False), ("set/*.jsonl", "set/a.jsonl", False), ("set/*.jsonl", "set/out.json", True),
        ("set/*.jsonl", "out.jsonl", True), ("*/*.jsonl", "set/new/out.json", False), ("set", "settled/out.jsonl", True),
    ],
)  # fmt: skip
def test_64_the_output_is_not_among_the_input(tmp_path: Path, input: str, output: str, fits: bool) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "set")
    file(LINES)(tmp_path / "set")
    recipe = recipe_for("select", tmp_path / input, tmp_path / output, ["keep.kind=random"])
    if fits:
        assert run_recipe(recipe).counts["in"] == 12
    else:
        with pytest.raises(RecipeError, match=r"^E701 output: "):
            run_recipe(recipe)
        assert [p.name for p in (tmp_path / "set").iterdir()] == ["a.jsonl"]


PROMPTS: list[list[dict[str, Any]]] = [
    [{"instruction": "x"}, {"instruction": "x", "input": "z", "output": None}],
    [{"prompt": "x"}, {"prompt": "z", "completion": "y"}],
    [{"messages": [user("x")]}, {"messages": [user("x"), assistant("y")]}],
    [{"conversations": [{"from": "human", "value": "x"}]}, {"conversations": [{"from": "human", "value": "z"}]}],
]


@pytest.mark.parametrize("rows", PROMPTS, ids=str)
def test_32_rows_without_a_response_are_read_for_a_model_to_answer(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = file(b"".join(line(row) + b"\n" for row in rows))(tmp_path)
    data = read_dataset(path, prompts=True)
    assert data.source
    assert not data.source.broken
    assert (data[0].prompt[-1].text, data[0].response) == ("x", "")
    assert [data.raw(id) for id in data.ids()] == [line(row) for row in rows]
    with pytest.raises(DataError):
        read_dataset(file(line(rows[0]))(tmp_path))


def test_37_a_column_of_our_own_name_is_refused(tmp_path: Path) -> None:
    path = file(b"".join(line({**row, "scores": 7}) + b"\n" for row in GOOD))(tmp_path)
    with pytest.raises(DataError, match=r'^E206 .* has a field "scores" of its own'):
        run_recipe(recipe_for("score", path, tmp_path / "out.jsonl", ["scorers.0.student.kind=scripted"]))


def test_43_a_text_beyond_the_models_context_is_set_aside_before_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = ScriptedModel.loss

    def limited(self: ScriptedModel, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        words = [len(span.target.split()) for span in spans]
        found = iter(sound(self, [span for span, n in zip(spans, words, strict=True) if n <= 512]))
        return [next(found) if n <= 512 else Failure("too-long", f"E406 {n} tokens, limit 512") for n in words]

    monkeypatch.setattr(ScriptedModel, "loss", limited)
    path = among({"instruction": "x", "output": "y " * 600})(tmp_path)
    summary = run_recipe(
        recipe_for(
            "select", path, tmp_path / "out.jsonl", ["scorer.student.kind=scripted", "keep=50%", "keep.below=null"]
        )
    )
    assert summary.balance == "13 in = 6 kept + 6 dropped + 1 quarantined"
    decisions = pq.read_table(summary.folder / "decisions.parquet").to_pylist()
    assert [d["reason"] for d in decisions if d["action"] == "quarantine"] == ["too-long: E406 600 tokens, limit 512"]


def test_53_a_cell_of_200_000_characters_is_read(tmp_path: Path) -> None:
    path = file(f"instruction,output\nx,{'y' * 200_000}\n", "a.csv")(tmp_path)
    assert read_dataset(path)[0].response == "y" * 200_000


FORMULAS = [
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@x",
    "\tx",
    "\rx",
    "\0x",
    "＝1",
    "＋1",
    "－1",
    "＠1",
    "'=1",
    "plain",
    "'quoted'",
]


def test_55_a_cell_that_is_a_formula_is_kept_as_it_is_and_made_inert_on_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"".join(line({"instruction": f"Question {n}?", "output": f}) + b"\n" for n, f in enumerate(FORMULAS))
    )
    everything = ["keep.kind=random", "keep=100%"]
    run_recipe(recipe_for("select", path, tmp_path / "b.csv", everything))
    inert = [f if f in ("plain", "'quoted'") else f"'{f}" for f in FORMULAS]
    assert [r.response for r in read_dataset(tmp_path / "b.csv")] == inert
    (tmp_path / "c.csv").write_text('instruction,output\nx,=HYPERLINK(1)\ny,"a\nb, ""c"""\n')
    assert [r.response for r in read_dataset(tmp_path / "c.csv")] == ["=HYPERLINK(1)", 'a\nb, "c"']
    run_recipe(recipe_for("select", tmp_path / "c.csv", tmp_path / "d.jsonl", everything))
    assert (tmp_path / "d.jsonl").read_text().startswith('{"instruction":"x","output":"=HYPERLINK(1)"}\n')


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.zst", lambda b: pa.compress(b, "zstd", asbytes=True)),
        ("a.json.gz", gzip.compress),
    ],
)
def test_57_rows_before_the_cut_are_read_where_it_is_allowed(
    name: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    rows = [{"instruction": f"Question {n}: {os.urandom(300).hex()}", "output": "y"} for n in range(500)]
    whole = json.dumps(rows).encode() if ".jsonl" not in name else b"".join(line(row) + b"\n" for row in rows)
    path = tmp_path / name
    path.write_bytes(pack(whole)[:-60_000])
    data = read(path, Record, Reading(truncated="accept"))
    assert data.source
    assert 100 < len(data) < 500
    assert [r.prompt[0].text for r in data] == [row["instruction"] for row in rows[: len(data)]]
    assert (data.source.notes, data.source.rows, len(data.source.broken)) == ({CUT: 1}, len(data) + 1, 1)
    with pytest.raises(DataError, match=r"^E115 .* or set truncated=accept"):
        read_dataset(path)
    recipe = recipe_for("select", path, tmp_path / "out.jsonl", ["keep.kind=random", "truncated=accept"])
    assert run_recipe(recipe).counts["quarantined"] == 1


def test_65_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(LINES)(tmp_path)
    sound = Path.open

    def closed(self: Path, *how: Any, **more: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return sound(self, *how, **more)

    monkeypatch.setattr(Path, "open", closed)  # whoever runs the tests may be allowed to read everything
    with pytest.raises(
        DataError, match=r"^E119 .*: cannot be read \(Permission denied\); check the file's permissions"
    ):
        run_recipe(recipe_for("select", path, tmp_path / "out.jsonl", ["keep.kind=random"]))


def test_74_copies_cost_as_many_steps_as_there_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = datasets_module._among
    steps: list[int] = []
    monkeypatch.setattr(datasets_module, "_among", lambda *what: steps.append(1) or sound(*what))
    counts = []
    for rows in (1_000, 2_000, 4_000):
        path = file((line(GOOD[0]) + b"\n") * rows)(tmp_path)
        steps.clear()
        assert len(read_dataset(path)) == rows
        counts.append(len(steps))
    assert counts == [999, 1_999, 3_999]


def test_notes_reach_whoever_looks_console_report_and_folder(tmp_path: Path) -> None:
    path = file(LINES.replace(b"Answer", b"\\u0000") + b"\n\n")(tmp_path)
    summary = run_recipe(recipe_for("select", path, tmp_path / "out.jsonl", ["keep.kind=random"]))
    assert summary.notes == {BLANK: 2, NUL: 12}
    said = told(summary)
    assert said.count("note: 2 blank lines") == said.count(f"note: 12 {NUL}") == 1
    assert f'"noted in the input","2 {BLANK}"' in summary.report.read_text("utf-8")
    assert json.loads((summary.folder / "inputs" / "source.json").read_text())["notes"] == summary.notes


def test_a_row_that_is_set_aside_says_file_line_and_byte_everywhere(tmp_path: Path) -> None:
    path = among('{"instruction": "x", "outp')(tmp_path)
    summary = run_recipe(recipe_for("select", path, tmp_path / "out.jsonl", ["keep.kind=random"]))
    place = "a.jsonl:7 (byte 402)"
    assert any(reason.startswith(f"quarantined: E102, first at {place}: ") for reason in summary.reasons)
    assert place in summary.report.read_text("utf-8")
    (row,) = pq.read_table(summary.folder / "quarantine.parquet").to_pylist()
    assert (row["file"], row["line"], row["byte"], row["raw"]) == ("a.jsonl", 7, 402, b'{"instruction": "x", "outp')


def test_every_entry_of_the_corpus_is_here() -> None:
    text = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_bad_*.py"))
    named = {int(number) for number in re.findall(r"^def test_(\d+)_", text, re.MULTILINE)}
    assert sorted({case.number for case in CASES} | named) == list(range(1, 77))
