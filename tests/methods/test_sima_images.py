"""Images that break or change: how many the page `sima` does without, what is told of each, what a resumed run makes of
another image under the same name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.interrupting import Asks
from harness.seeing import asked, picture_file, pictured, rows
from tunesift import Record, ResumeError, Stopped, Summary, TooManyFailures, read_preferences, recipe_for, run_recipe
from tunesift.images import bytes_digest
from tunesift.methods.sima_images import SEEN, seen_in, sighted
from tunesift.models.scripted import ScriptedModel

pytest.importorskip("PIL", reason='needs the "vision" extra')

FIRST = {"kind": "scripted", "otherwise": "It is a thing.", "replies": {"Now compare these": "The first one.\n[[1]]"}}
"""A model that answers everything alike, and likes what comes first."""
PAIRS = ["tuner=null", "critic_orders=single", f"student={json.dumps(FIRST)}"]


def sima(input: Path, output: Path, *settings: str, **how: Any) -> Summary:
    return run_recipe(recipe_for("sima", input, output, [*PAIRS, *settings]), **how)


def write(home: Path, records: list[Record]) -> Path:
    path = home / "data" / "in.jsonl"
    path.write_text(rows(records), "utf-8")
    return path


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked; a sampled answer is another one than a greedy one."""
    plain, said = ScriptedModel.chat, list[str]()

    def chat(model: ScriptedModel, conversations: Any, how: Any) -> Any:
        said.extend(conversation[-1].text for conversation in conversations)
        return plain(ScriptedModel(otherwise=f"At {how.temperature}.", replies=model.replies), conversations, how)

    monkeypatch.setattr(ScriptedModel, "chat", chat)
    return said


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with images, two that are broken, and another folder for what is made."""
    pictured(tmp_path / "data", 4)
    (tmp_path / "out").mkdir()
    (tmp_path / "data" / "text.png").write_text("no image")
    (tmp_path / "data" / "cut.png").write_bytes((tmp_path / "data" / "0.png").read_bytes()[:60])
    return tmp_path


def test_one_broken_file_of_four_costs_one_row_and_is_told_by_id_and_error(home: Path, answers: list[str]) -> None:
    records = [asked(f"r{n}", name) for n, name in enumerate(("0.png", "1.png", "text.png", "3.png"))]
    summary = sima(write(home, records), home / "out" / "pairs.jsonl")
    assert [pair.id for pair in read_preferences(home / "out" / "pairs.jsonl")] == ["r0", "r1", "r3"]
    (row,) = pq.read_table(summary.folder / "quarantine.parquet").to_pylist()
    assert (row["id"], row["code"]) == ("r2", "E407")
    assert "(UnidentifiedImageError)" in row["message"]
    page = (summary.folder / "report.html").read_text("utf-8").replace(" ", "")
    assert '"id":"r2"' in page
    assert "(UnidentifiedImageError)" in page


@pytest.mark.parametrize("images", [
    ("cut.png", "text.png"), ("cut.png", "lost.png"), ("lost.png", "gone.png"), ("cut.png", "../out.png"),
])  # fmt: skip
def test_above_a_hundredth_of_broken_images_the_run_ends_before_anybody_is_asked(
    home: Path, answers: list[str], images: tuple[str, str]
) -> None:
    picture_file(home / "out.png")
    sound = [asked(f"s{n}", f"{n % 4}.png") for n in range(120)]
    input = write(home, [*sound, *(asked(f"b{n}", image) for n, image in enumerate(images))])
    with pytest.raises(
        TooManyFailures, match=r"2 of 122 rows with an image cannot be used, more than 1 \(first, "
    ) as end:
        sima(input, home / "out" / "pairs.jsonl")
    assert "Error)" in str(end.value) or "E803" in str(end.value)
    assert answers == []
    assert not (home / "out" / "pairs.jsonl").exists()
    allowed = sima(input, home / "out" / "more.jsonl", "max_failures=0.02")
    assert allowed.counts == {"in": 122, "kept": 120, "dropped": 0, "quarantined": 2}


@pytest.mark.parametrize("broken", ["cut.png", "lost.png"])
def test_once_the_images_are_right_the_same_command_goes_on(home: Path, answers: list[str], broken: str) -> None:
    input = write(home, [asked("a", "0.png"), asked("b", broken), asked("c", broken)])
    output = home / "out" / "pairs.jsonl"
    with pytest.raises(TooManyFailures, match="put the images right and start again with --retry-failed any"):
        sima(input, output)
    picture_file(home / "data" / broken)
    assert sima(input, output, retry_failed=("unreadable",)).counts["kept"] == 3


def test_two_broken_images_of_two_hundred_are_a_hundredth_and_no_more(home: Path, answers: list[str]) -> None:
    sound = [asked(f"s{n}", f"{n % 4}.png") for n in range(198)]
    summary = sima(write(home, [*sound, asked("b", "cut.png"), asked("c", "lost.png")]), home / "out" / "pairs.jsonl")
    assert summary.counts == {"in": 200, "kept": 198, "dropped": 0, "quarantined": 2}


def test_an_id_is_told_where_a_row_says_none_and_none_where_it_says_too_little(home: Path, answers: list[str]) -> None:
    named = {
        "messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A."}],
        "images": ["cut.png"],
    }
    again = {**named, "images": ["0.png"]}
    path = home / "data" / "in.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in (again, named, {"id": "short", "messages": []}, {"odd": 1}))
    )
    summary = sima(path, home / "out" / "pairs.jsonl")
    told = pq.read_table(summary.folder / "quarantine.parquet").to_pylist()
    assert [row["id"] for row in told[1:]] == ["short", ""]
    assert len(told[0]["id"]) == 16


def test_images_of_several_frames_and_of_every_mode_are_asked_about(home: Path, answers: list[str]) -> None:
    from PIL import Image

    kinds = {"CMYK": "jpg", "P": "png", "RGBA": "png", "LA": "png", "I;16": "png", "1": "png"}
    frames = [Image.new("RGB", (9, 9), colour) for colour in ((0, 255, 0), (0, 0, 255))]
    frames[0].save(home / "data" / "moving.gif", save_all=True, append_images=frames[1:])
    for mode, ending in kinds.items():
        Image.new(mode, (9, 9)).save(home / "data" / f"{mode}.{ending}")
    names = ["moving.gif", *(f"{mode}.{ending}" for mode, ending in kinds.items())]
    summary = sima(write(home, [asked(f"q{n}", name) for n, name in enumerate(names)]), home / "out" / "pairs.jsonl")
    assert summary.counts == {"in": 7, "kept": 7, "dropped": 0, "quarantined": 0}


def test_an_image_that_changed_is_another_question_to_a_resumed_run(home: Path, answers: list[str]) -> None:
    input = write(home, [asked(f"r{n}", f"{n}.png", f"What is {n}?") for n in range(4)])
    asks = Asks(3)  # a look, the greedy answers, the sampled ones
    with pytest.raises(Stopped):
        sima(input, home / "out" / "pairs.jsonl", progress=asks, stop=asks.stop)
    kept = (home / "data" / "2.png").read_bytes()
    picture_file(home / "data" / "2.png", (1, 2, 3))
    with pytest.raises(
        ResumeError, match='the content of the item "r2" is not what it was; use another folder, or restore it'
    ):
        sima(input, home / "out" / "pairs.jsonl")
    before = len(answers)
    old = home / "out" / "pairs.jsonl.run"
    sima(input, home / "out" / "new.jsonl", f"reuse={old}")
    again = [text for text in answers[before:] if "Now compare these" not in text]
    assert again == ["What is 2?", "What is 2?"]  # both its answers, and nobody else's
    (home / "data" / "2.png").write_bytes(kept)
    assert sima(input, home / "out" / "pairs.jsonl").counts["kept"] == 4


def test_what_only_moved_is_the_same_question(home: Path, answers: list[str]) -> None:
    input = write(home, [asked(f"r{n}", f"{n}.png") for n in range(4)])
    asks = Asks(3)
    with pytest.raises(Stopped):
        sima(input, home / "out" / "pairs.jsonl", progress=asks, stop=asks.stop)
    shutil.copytree(home / "data", home / "copy")  # other times of the files
    before = len(answers)
    sima(home / "copy" / "in.jsonl", home / "out" / "pairs.jsonl")
    assert all("Now compare these" in text for text in answers[before:])


def test_digests_are_of_files_in_the_folder_alone_and_reach_no_pair(
    home: Path, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = bytes_digest("0.png", home / "data")
    assert len(digest) == 64
    picture_file(home / "out.png")
    assert [bytes_digest(name, home / "data") for name in ("../out.png", "https://x.org/a.png", "lost.png", ".")] == [
        ""
    ] * 4
    counted: Callable[..., str] = bytes_digest
    seen: list[str] = []
    monkeypatch.setattr(
        "tunesift.methods.sima_images.bytes_digest", lambda name, place: seen.append(name) or counted(name, place)
    )
    found = list(sighted([asked("a", "0.png"), asked("b", "0.png")], home / "data"))
    assert [seen_in(record) for record in found] == [(digest,), (digest,)]
    assert seen == ["0.png"]
    sima(write(home, [asked("a", "0.png")]), home / "out" / "pairs.jsonl")
    assert SEEN not in (home / "out" / "pairs.jsonl").read_text()
