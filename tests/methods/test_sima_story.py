"""`sima` as a user goes through it: pairs and a model from a file, pictures that cannot be used, stops and restarts."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.interrupting import Asks
from harness.seeing import asked, embedded, llava, picture_file, pictured, rows
from tunesift import (
    DataError,
    Message,
    ModelRefused,
    RecipeError,
    Record,
    Stopped,
    Summary,
    TooManyFailures,
    read_dataset,
    read_preferences,
    recipe_for,
    run_recipe,
)
from tunesift.inputs import home_of_input
from tunesift.planning import plan
from tunesift.running.mending import verify
from tunesift.telling import told_record

pytest.importorskip("PIL", reason='needs the "vision" extra')

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]

LOOKS = {
    "kind": "scripted",
    "otherwise": "It is a thing.",
    "replies": {"Now compare these": "The first one.\n[[1]]"},
}
"""A model that answers everything alike."""
PAIRS = ["tuner=null", f"student={json.dumps(LOOKS)}"]
FORMS = {"first": "[[1]]", "second": "[[2]]"}


def sima(input: Path, output: Path, *settings: str, **how: Any) -> Summary:
    return run_recipe(recipe_for("sima", input, output, settings), **how)


def reasons(folder: Path) -> dict[str, str]:
    return {row["record_id"]: row["reason"] for row in pq.read_table(folder / "decisions.parquet").to_pylist()}


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with images, and another for what is made."""
    pictured(tmp_path / "data", 4)
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def two_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scripted model answers otherwise when it draws."""
    from tunesift.models.scripted import ScriptedModel

    plain = ScriptedModel.chat
    monkeypatch.setattr(
        ScriptedModel, "chat",
        lambda model, asked, how: plain(ScriptedModel(otherwise=f"At {how.temperature}.", replies=model.replies), asked, how),
    )  # fmt: skip


def write(home: Path, records: list[Record]) -> Path:
    path = home / "data" / "in.jsonl"
    path.write_text(rows(records), "utf-8")
    return path


# --- a tiny model, answering for itself ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model that reads images."""
    pytest.importorskip("trl", reason='needs the "train" extra')
    return llava(tmp_path_factory.mktemp("llava"))


def by_itself(seeing: Path, *settings: str) -> list[str]:
    """What a user sets: a judge that always finds the first answer better, so that random weights make pairs."""
    judge = json.dumps({"kind": "scripted", "otherwise": "So it is.\n[[1]]"})
    return [
        f"student.name={seeing}", "student.device=cpu", f"judge={judge}", "critic_orders=single", "answer_tokens=6",
        "tuner.steps=2", "tuner.batch=2", "tuner.learning_rate=1e-3", "tuner.lora.rank=4", *settings,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("adapters", ["full", "lora"])
def test_photographs_become_pairs_and_a_tuned_model_that_answers(
    seeing: Path, shared: Path, tmp_path: Path, adapters: str
) -> None:
    """The images of the development data, through the command line, to a checkpoint that answers about them."""
    shutil.copytree(shared / "vision" / "llamafactory" / "mllm_demo_data", tmp_path / "data" / "photos")
    shutil.copy(shared / "vision" / "qwen_vl" / "images" / "10095.png", tmp_path / "data" / "photos")
    names = sorted(path.name for path in (tmp_path / "data" / "photos").iterdir())
    input = write(tmp_path, [asked(f"q{n}", f"photos/{name}", f"What is in {n}?") for n, name in enumerate(names)])
    settings = by_itself(seeing, *(["tuner.lora=null"] if adapters == "full" else []))
    settings = [word for word in settings if adapters == "lora" or word != "tuner.lora.rank=4"]
    words = [sys.executable, "-m", "tunesift", "sima", str(input), "-o", str(tmp_path / "tuned"), *settings]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("tuned: 4 in = 4 kept + 0 dropped + 0 quarantined")
    weights = "model.safetensors" if adapters == "full" else "adapter_model.safetensors"
    assert {weights, "processor_config.json", "chat_template.jinja"} <= {p.name for p in (tmp_path / "tuned").iterdir()}
    pairs = told(tmp_path / "tuned.pairs.jsonl")
    assert [row["images"] for row in pairs] == [[f"photos/{name}"] for name in names]
    assert {row["source_of_chosen"] for row in pairs} == {"sampled"}
    again = pair_input(tmp_path, names)
    summary = sima(again, tmp_path / "out.jsonl", f"student.name={tmp_path / 'tuned'}", "student.device=cpu", "tuner=null",
                   "answer_tokens=6", "critic_tokens=6")  # fmt: skip
    assert summary.counts["in"] == 4
    assert verify(tmp_path / "tuned.run") == []


def pair_input(home: Path, names: list[str]) -> Path:
    return write(home, [asked(f"z{n}", f"photos/{name}", "And now?") for n, name in enumerate(names)])


@pytest.mark.slow
def test_a_run_that_is_stopped_after_any_chunk_asks_nobody_twice_and_makes_the_same_files(
    seeing: Path, home: Path
) -> None:
    input = write(home, [asked(f"q{n}", f"{n}.png", f"What is {n}?") for n in range(4)])
    settings = by_itself(seeing, "execution.chunk=2")
    sima(input, home / "out" / "whole", *settings)
    lives = 0
    while True:
        asks = Asks(1)
        try:
            sima(input, home / "out" / "stopped", *settings, progress=asks, stop=asks.stop)
        except Stopped:
            lives += 1
            continue
        break
    assert lives > 6  # two chunks in each of four stages, and updates of the training
    for name in ("whole", "stopped"):
        for stage, count in (("look", 4), ("greedy", 4), ("sampled", 4), ("compare", 4)):
            parts = sorted((home / "out" / f"{name}.run" / "stages" / stage).glob("part-*.parquet"))
            assert sum(pq.read_metadata(part).num_rows for part in parts) == count
    one, two = ((home / "out" / f"{name}.pairs.jsonl").read_bytes() for name in ("whole", "stopped"))
    assert one == two
    files = [(home / "out" / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]


# --- pairs alone --------------------------------------------------------------------------------------------------------------


def test_every_row_has_its_reason_and_answers_that_are_the_same_are_no_pair(home: Path) -> None:
    two = (
        Message("user", "A?", ("0.png",)),
        Message("assistant", "B."),
        Message("user", "C?"),
        Message("assistant", "D."),
    )
    records = [
        asked("same", "0.png"),
        Record("text", (Message("user", "What?"), Message("assistant", "That."))),
        Record("turns", two),
        asked("mute", "1.png", answer=" "),
        asked("blank", "1.png", question=" "),
        asked("lost", "nowhere.png"),
    ]
    summary = sima(write(home, records), home / "out" / "pairs.jsonl", *PAIRS)
    assert reasons(summary.folder) == {
        "same": "same answers", "text": "has no image", "turns": "is more than a question and an answer",
        "mute": "has no reference answer", "blank": "asks nothing",
        "lost": 'unreadable: E407 the image "nowhere.png" cannot be read (FileNotFoundError)',
    }  # fmt: skip
    assert (home / "out" / "pairs.jsonl").read_bytes() == b""


def test_pairs_are_read_again_by_us(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesift.models.scripted import ScriptedModel

    plain = ScriptedModel.chat
    monkeypatch.setattr(
        ScriptedModel, "chat",
        lambda model, asked, how: plain(ScriptedModel(otherwise=f"At {how.temperature}.\nSo.", replies=model.replies), asked, how),
    )  # fmt: skip
    records = [asked("a", "0.png", "What\nis it?"), asked("b", embedded())]
    output = home / "data" / "pairs.jsonl"
    sima(write(home, records), output, *PAIRS, "critic_orders=single")
    first, second = told(output)
    assert first == {
        "id": "a", "prompt": [{"role": "user", "content": "What\nis it?"}], "images": ["0.png"],
        "chosen": [{"role": "assistant", "content": "At 0.8.\nSo."}],
        "rejected": [{"role": "assistant", "content": "At 0.0.\nSo."}],
        "source_of_chosen": "sampled", "order": ["sampled-first"], "verdict_raw": ["The first one.\n[[1]]"],
    }  # fmt: skip
    assert second["images"] == records[1].prompt[0].images[0].split("\0")
    again = read_preferences(output)
    assert [pair.prompt for pair in again] == [record.prompt for record in records]
    assert home_of_input(output) == home / "data"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_pairs_are_read_again_by_datasets_and_trl(
    seeing: Path, home: Path, two_answers: None, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user goes on with them: `load_dataset`, TRL's own reading of a row, its collator of images and texts."""
    import datasets
    from PIL import Image
    from transformers import AutoProcessor
    from trl.data_utils import is_conversational, maybe_extract_prompt, prepare_multimodal_messages
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    output = home / "data" / f"pairs.{ending}"
    sima(
        write(home, [asked(f"r{n}", f"{n}.png", f"What is {n}?") for n in range(3)]),
        output,
        *PAIRS,
        "critic_orders=single",
    )
    kind = "json" if ending == "jsonl" else ending
    found = datasets.load_dataset(kind, data_files=str(output), split="train", cache_dir=str(home / "cache"))
    assert found["images"] == [[f"{n}.png"] for n in range(3)]
    rows = []
    for n, row in enumerate(found):
        assert is_conversational(row)
        assert maybe_extract_prompt(row)["prompt"] == [{"role": "user", "content": f"What is {n}?"}]
        opened = [Image.open(home / "data" / name).convert("RGB") for name in row["images"]]
        (turn,) = prepare_multimodal_messages(row["prompt"], images=opened)
        assert [part["type"] for part in turn["content"]] == ["image", "text"]
        rows.append({name: row[name] for name in ("prompt", "chosen", "rejected")} | {"images": opened})
    processor = AutoProcessor.from_pretrained(seeing)
    read = DataCollatorForVisionPreference(processor=processor)(rows)
    ids, learned = read["input_ids"], read["completion_mask"].bool()
    assert tuple(read["pixel_values"].shape) == (6, 3, 28, 28)
    assert (ids == processor.image_token_id).sum(1).tolist() == [4] * 6
    said = [processor.tokenizer.decode(ids[n][learned[n]], skip_special_tokens=True).strip() for n in range(6)]
    assert said == ["At 0.8."] * 3 + ["At 0.0."] * 3


def test_a_row_keeps_its_own_column_called_order(home: Path, two_answers: None) -> None:
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A."}]
    more = [{"order": 17, "system": "Old.", "conversations": [], "kind": "x"}, {"sima_order": "s"}]
    (home / "data" / "in.jsonl").write_text(
        "".join(
            json.dumps({"id": f"r{n}", "messages": turns, "images": ["0.png"], **own}) + "\n"
            for n, own in enumerate(more)
        )
    )
    output = home / "data" / "pairs.jsonl"
    done = sima(home / "data" / "in.jsonl", output, *PAIRS, "critic_orders=single")
    first, second = told(output)
    assert (first["order"], first["kind"], first["sima_sima_order"]) == (17, "x", ["sampled-first"])
    assert (second["sima_order"], second["sima_sima_order"], "order" in second) == ("s", ["sampled-first"], False)
    assert first["source_of_chosen"] == second["source_of_chosen"] == "sampled"
    assert [pair.prompt for pair in read_preferences(output)] == [(Message("user", "What?", ("0.png",)),)] * 2
    assert pq.read_table(done.folder / "tables" / "pairs.parquet").to_pylist()[0]["greedy answer wins"] == 0.0


def test_pairs_alone_are_the_output_that_inspect_and_the_report_show(home: Path, two_answers: None) -> None:
    input = write(home, [asked("a", "0.png", answer="A red thing."), asked("b", "lost.png")])
    done = sima(input, home / "out" / "pairs.jsonl", *PAIRS, "critic_orders=single")
    said = [line.strip() for line in told_record(done.folder, "a", as_json=False).splitlines()]
    assert said[:7] == ["a: keep", "sampled answer chosen", "user: <image>What is it?", "assistant: A red thing.",
                        "new user: What is it?", "new assistant: At 0.8.", "new rejected: At 0.0."]  # fmt: skip
    assert "new" not in told_record(done.folder, "b", as_json=False)
    assert '["rejected","At 0.0."]' in (done.folder / "report.html").read_text("utf-8").replace(", ", ",")


@pytest.mark.parametrize(("image", "code"), [
    ("../outside.png", "E803"), ("/etc/passwd", "E803"), ("https://example.org/a.png", "E804"), ("bomb.png", "E405"),
    ("cut.png", "E407"), ("data:image/png;base64,????", "E205"),
])  # fmt: skip
def test_an_image_that_must_not_or_cannot_be_opened_costs_its_row(home: Path, image: str, code: str) -> None:
    picture_file(home / "outside.png")
    (home / "data" / "cut.png").write_bytes(picture_file(home / "whole.png").read_bytes()[:70])
    (home / "data" / "bomb.png").write_bytes(bomb())
    summary = sima(write(home, [asked("good", "0.png"), asked("bad", image)]), home / "out" / "pairs.jsonl", *PAIRS)
    assert summary.counts == {"in": 2, "kept": 0, "dropped": 1, "quarantined": 1}
    (row,) = pq.read_table(summary.folder / "quarantine.parquet").to_pylist()
    assert row["code"] == code


def bomb() -> bytes:
    """A PNG file that says it is 60,000 pixels wide and high."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def test_more_than_a_hundredth_of_images_that_cannot_be_used_stop_the_run(home: Path) -> None:
    lost = [asked(f"l{n}", f"lost{n}.png") for n in range(12)]
    input = write(home, [asked("good", "0.png"), *lost])
    with pytest.raises(TooManyFailures, match=r'stage "look": 12 items failed, more than 10 .*FileNotFoundError'):
        sima(input, home / "out" / "pairs.jsonl", *PAIRS)
    assert not list((home / "out").glob("pairs.jsonl"))


def test_rows_of_text_alone_are_refused_in_a_sentence(home: Path) -> None:
    text = [Record(f"t{n}", (Message("user", "What?"), Message("assistant", "That."))) for n in range(3)]
    with pytest.raises(
        DataError, match=r"no row of 3 can be asked about \(3 times: has no image\); give rows of an image"
    ):
        sima(write(home, text), home / "out" / "pairs.jsonl", *PAIRS)
    assert list((home / "out").iterdir()) == []


Make = Callable[..., Path]


def test_a_model_of_text_alone_is_refused_before_anything_is_read(home: Path, make_tiny: Make) -> None:
    pytest.importorskip("trl", reason='needs the "train" extra')
    input = write(home, [asked("a", "0.png")])
    with pytest.raises(RecipeError, match=r"student.name: .* reads no images; give a vision-language model"):
        sima(input, home / "out" / "tuned", f"student.name={make_tiny()}")
    with pytest.raises(RecipeError, match=r"student: is not given; write student.name=FOLDER"):
        sima(input, home / "out" / "tuned")
    with pytest.raises(RecipeError, match="a model of kind scripted has no weights here to be tuned"):
        sima(input, home / "out" / "tuned", f"student={json.dumps(LOOKS)}")
    assert list((home / "out").iterdir()) == []


@pytest.mark.parametrize(("setting", "sentence"), [
    ("temperature=0", "temperature: 0 is not above 0 to 2"), ("answer_tokens=0", "answer_tokens: 0 is no answer"),
    ("critic_tokens=-1", "critic_tokens: -1 is no answer"), ("top_p=1.5", "top_p: 1.5 is no share"),
    ("tuner.beta=0", "beta: 0 is not above 0"), ("critic_orders=three", "critic_orders"),
    ("tuner.template=alpaca", "template"),
])  # fmt: skip
def test_a_setting_that_means_nothing_is_refused(home: Path, setting: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        sima(write(home, [asked("a", "0.png")]), home / "out" / "tuned", "student.name=llava", setting)
    assert list((home / "out").iterdir()) == []


@pytest.mark.slow
def test_nothing_is_trained_where_a_fifth_of_the_replies_has_no_verdict_or_no_pair_is_left(
    seeing: Path, home: Path
) -> None:
    input = write(home, [asked(f"q{n}", f"{n}.png", f"What is {n}?") for n in range(4)])
    silent = f"judge={json.dumps({'kind': 'scripted', 'otherwise': 'Both are good.'})}"
    with pytest.raises(
        ModelRefused, match=r"scripted: 4 of 4 comparisons have no \[\[1\]\] or \[\[2\]\], more than a fifth"
    ):
        sima(input, home / "out" / "tuned", *by_itself(seeing), silent)
    with pytest.raises(DataError, match=r"no pair can be trained on, of 4 rows \(4 times: inconsistent\)"):
        sima(input, home / "out" / "other", *by_itself(seeing), "critic_orders=both")
    assert {path.name for path in (home / "out").iterdir()} == {"tuned.run", "other.run"}
    run = home / "out" / "tuned.run"
    (verdicts,) = pq.read_table(run / "tables" / "verdicts.parquet").to_pylist()
    assert verdicts == {"order": "sampled-first", "replies": 4, "response 1": 0, "response 2": 0, "unparsed": 4}
    assert pq.read_table(run / "tables" / "pairs.parquet").to_pylist()[0]["pairs"] == 0
    assert set(reasons(run).values()) == {"unparsed"}
    page = (run / "report.html").read_text("utf-8")
    assert "4 of 4 comparisons have no [[1]] or [[2]], more than a fifth, so that nothing is trained." in page
    assert not (run / "checkpoints").exists()
    with pytest.raises(ModelRefused, match=r"look at .*report.html, give another judge"):  # and says so again
        sima(input, home / "out" / "tuned", *by_itself(seeing), silent)
    assert verify(run) == []
    summary = sima(input, home / "out" / "pairs.jsonl", *by_itself(seeing)[:5], silent, "tuner=null")
    assert summary.notes["replies that name neither answer; their pairs are not made"] == 4


def test_a_plan_counts_two_answers_and_two_comparisons_of_every_row(home: Path) -> None:
    input = write(home, [asked(f"q{n}", f"{n}.png") for n in range(4)])
    found = plan(recipe_for("sima", input, home / "out" / "tuned", ["student.name=llava"]))
    assert [(s.stage, s.items) for s in found.stages] == [
        ("look", 4),
        ("greedy", 4),
        ("sampled", 4),
        ("compare", 8),
        ("tune", 4),
    ]
    assert found.stages[-1].forwards == 2 * 3 * (
        4 + 1
    )  # two answers, three epochs; forward, backward, again, as it was
    assert found.missing == ("student: llava",)


def test_images_beside_a_prompt_without_marks_are_those_of_its_first_question(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(
        {"prompt": [{"role": "user", "content": "What is it?"}], "completion": "That.", "images": ["a.png"]}) + "\n")  # fmt: skip
    (record,) = read_dataset(tmp_path / "in.jsonl")
    assert record.prompt == (Message("user", "What is it?", ("a.png",)),)
