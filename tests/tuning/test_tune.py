"""`tunesift tune` as a user goes through it: a model from a file, told, verified, mended, killed and gone on with."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.command import Command
from harness.tiny import MakeTiny
from tunesift import SFT, LoRA, Span, TransformersModel, model_output
from tunesift.errors import told_bytes
from tunesift.tuning.student import check_trainable

pytest.importorskip("trl", reason='needs the "train" extra')

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]

LIMIT = 1024
"""Tokens that the tiny student reads."""
HELD_OUT = 3
"""A fifth of the 19 records that fit."""
WORDS = ["tune", "in.json", "-o", "tuned", "student.name=tiny", "tuner.template=alpaca", "tuner.steps=3", "tuner.batch=4",
         "tuner.held_out=0.2", "tuner.learning_rate=1e-3"]  # fmt: skip
BEGINS = (
    "Below is an instruction that describes a task{}. Write a response that appropriately completes the request.\n\n"
)


@pytest.fixture(scope="module")
def made(make_tiny: MakeTiny, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student, thirty records, one of them without a response, and the model that was made of them."""
    home = tmp_path_factory.mktemp("tune")
    shutil.copytree(make_tiny(length=LIMIT), home / "tiny")
    rows = json.loads((shared / "alpaca_gpt4" / "alpaca_gpt4_en.json").read_text("utf-8"))[:29]
    (home / "in.json").write_text(json.dumps([*rows, {"instruction": "Say nothing.", "input": "", "output": " "}]))
    done = subprocess.run(
        [sys.executable, "-m", "tunesift", *WORDS], cwd=home, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    (home / "said.txt").write_text(done.stdout)
    return home


@pytest.fixture
def place(made: Path, stands_in: Path) -> Path:
    """A copy of it to stand in."""
    shutil.copytree(made, stands_in, dirs_exist_ok=True)
    return stands_in


def rows_of(place: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads((place / "in.json").read_text())
    return rows


def texts_of(place: Path) -> list[str]:
    """Every record in Alpaca's template."""
    found = []
    for row in rows_of(place):
        given = row["input"]
        further = ", paired with an input that provides further context" if given else ""
        asked = f"### Instruction:\n{row['instruction']}\n\n" + (f"### Input:\n{given}\n\n" if given else "")
        found.append(BEGINS.format(further) + asked + "### Response:" + row["output"])
    return found


def tokens_of(place: Path) -> list[int]:
    """Tokens of every record, its end included, by the tokenizer's own library."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(place / "tiny" / "tokenizer.json"))
    return [len(tokenizer.encode(text).ids) + 1 for text in texts_of(place)]


def change_a_byte(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 8]) + content[middle + 1 :])


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_every_record_has_its_reason_and_the_balance_is_told(place: Path) -> None:
    lengths = tokens_of(place)
    reasons = [row["reason"] for row in pq.read_table(place / "tuned.run/decisions.parquet").to_pylist()]
    assert len(reasons) == 30
    for length, row, reason in zip(lengths, rows_of(place), reasons, strict=True):
        if not row["output"].strip():
            assert reason == "empty: the response is empty"
        elif length > LIMIT:
            assert reason == f"too long: {length:,} tokens, the limit is 1,024"
        else:
            assert reason in ("trained on", "held out: its loss is measured")
    fit = sum(length <= LIMIT for length in lengths) - 1
    assert reasons.count("held out: its loss is measured") == int(0.2 * fit) == HELD_OUT
    said = (place / "said.txt").read_text().splitlines()
    assert said[0] == f"tuned: 30 in = {fit} kept + {30 - fit} dropped + 0 quarantined"
    assert {" ".join(line.split()) for line in said[1:5]} == {
        f"{fit - HELD_OUT} kept: trained on", f"{HELD_OUT} kept: held out", f"{29 - fit} dropped: too long",
        "1 dropped: empty",
    }  # fmt: skip
    table = pq.read_table(place / "tuned.run/tables/training.parquet").to_pylist()[0]
    trained = sum(n for n, reason in zip(lengths, reasons, strict=True) if reason == "trained on")
    assert (table["records"], table["tokens"], table["updates"]) == (fit - HELD_OUT, trained, 3)
    assert table["held-out loss, last"] < table["held-out loss, first"]
    curve = pq.read_table(place / "tuned.run/tables/loss.parquet").to_pylist()
    assert [row["step"] for row in curve if row["of"] == "trained on"] == [1, 2, 3]
    assert [row["step"] for row in curve if row["of"] == "held out"] == [0, 1, 2, 3]


def test_the_model_loads_and_is_another_than_the_student(place: Path) -> None:
    span = [Span("It is said:", " the sea is cold")]
    student, tuned = (TransformersModel(name=str(place / name), device="cpu") for name in ("tiny", "tuned"))
    assert tuned.loss(span)[0].mean < student.loss(span)[0].mean  # type: ignore[union-attr]  # text alone is learned
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in (place / "tuned").iterdir())


def test_a_second_start_does_nothing_and_the_folder_is_told_and_sound(place: Path, tunesift: Command) -> None:
    before = weights(place / "tuned")
    again = tunesift(*WORDS, "--json")
    assert (again.code, json.loads(again.out)["worked"], again.err) == (0, 0, "")
    assert weights(place / "tuned") == before
    assert tunesift("verify", "tuned.run").out == "tuned.run: every byte is as it was written\n"
    told = tunesift("inspect", "tuned.run").out.splitlines()
    assert "  stage measure: 30 items done" in told
    assert "  training tune: 3 updates done" in told
    assert json.loads(tunesift("inspect", "tuned.run", "--json").out)["trainings"] == {"tune": 3}
    assert tunesift("inspect", "tuned.run", "30").out.splitlines()[:2][1] == "  empty: the response is empty"
    assert {"trl", "peft"} <= json.loads((place / "tuned.run/run.json").read_text())["versions"].keys()
    page = (place / "tuned.run/report.html").read_text("utf-8")
    assert "updates of the weights" in page
    assert "loss in nats per token" in page


def test_another_setting_is_refused_by_its_name(place: Path, tunesift: Command) -> None:
    told = tunesift(*WORDS, "tuner.seed=1")
    assert told.code == 64
    assert "tuned.run: holds another run: method.tuner.seed was 0 and is now 1; write to another output" in told.err
    assert tunesift(*WORDS, "tuner.save_every=1", "--quiet").code == 0  # decides nothing


def test_a_changed_output_is_found_and_written_again_without_training(place: Path, tunesift: Command) -> None:
    before = weights(place / "tuned")
    change_a_byte(place / "tuned/model.safetensors")
    said = "tuned/model.safetensors: is not as the run wrote it; remove tuned, and the same command writes it again."
    told = tunesift("verify", "tuned.run")
    assert (told.code, said in told.err + told.out) == (74, True)
    shutil.rmtree(place / "tuned")
    told = tunesift("verify", "tuned.run")
    assert (told.code, "tuned: is missing; the same command writes it again." in told.err + told.out) == (74, True)
    assert json.loads(tunesift(*WORDS, "--json").out)["worked"] == 0
    assert weights(place / "tuned") == before
    assert tunesift("verify", "tuned.run").code == 0


@pytest.mark.parametrize("spoil", ["cut", "gone", "of another model"])
def test_a_list_of_the_output_that_is_not_the_runs_is_found(place: Path, tunesift: Command, spoil: str) -> None:
    listed = place / "tuned/_COMPLETE.json"
    if spoil == "gone":
        listed.unlink()
    else:
        listed.write_bytes(
            listed.read_bytes()[:-9] if spoil == "cut" else listed.read_bytes().replace(b'"steps": 3', b'"steps": 4')
        )
    told = tunesift("verify", "tuned.run")
    assert "tuned/_COMPLETE.json: is not as the run wrote it; remove tuned, and" in told.err + told.out
    told = tunesift(*WORDS)
    assert (told.code, "tuned: was changed after the run wrote it; choose another output" in told.err) == (73, True)


def test_what_somebody_put_beside_the_model_is_never_removed(place: Path, tunesift: Command) -> None:
    (place / "tuned/notes.md").write_text("mine")
    change_a_byte(place / "tuned.run/decisions.parquet")
    assert "it will be written again" in tunesift("repair", "tuned.run").out
    told = tunesift(*WORDS, "--quiet")
    assert (told.code, told.err) == (
        73,
        "tuned/notes.md: is none of the model's files; move it away and start again.\n",
    )
    assert (place / "tuned/notes.md").read_text() == "mine"
    (place / "tuned/notes.md").rename(place / "notes.md")
    assert tunesift(*WORDS, "--quiet").code == 0
    assert tunesift("verify", "tuned.run").code == 0


@pytest.mark.parametrize("linked", [True, False])
def test_the_output_lies_on_the_disk_before_the_run_is_complete(
    place: Path, tunesift: Command, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    """On the same disk the weights are those of the checkpoint, which were synced; all else, and on another disk they,
    too, are copies: whoever edits a template there leaves the run as it was."""
    synced: list[str] = []
    sync = model_output.sync

    def noted(path: Path) -> None:
        assert not (place / "tuned.run/result.json").exists()
        synced.append(re.sub(r"\.\d+\.tmp", "", path.resolve().name))
        sync(path)

    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(model_output, "sync", noted)
    if not linked:
        monkeypatch.setattr(os, "link", refused)
    before = weights(place / "tuned")
    shutil.rmtree(place / "tuned")
    assert tunesift(*WORDS, "--quiet").code == 0
    assert weights(place / "tuned") == before
    assert (place / "tuned/model.safetensors").stat().st_nlink == 1 + linked
    names = {path.name for path in (place / "tuned").iterdir()}
    assert set(synced) == {".tuned", place.name} | (names - {"model.safetensors"} if linked else names)
    assert (place / "tuned/config.json").stat().st_nlink == 1
    assert synced[-2:] == [".tuned", place.name]  # the names in the new folder, and then its own


@pytest.mark.slow
@pytest.mark.parametrize(("spoilt", "said"), [
    ("model/model.safetensors", "is not as it was written"), ("model/_COMPLETE.json", "is missing"), ("begun.json", "is damaged"),
])  # fmt: skip
def test_a_damaged_training_is_repaired_by_training_again_to_the_same(
    place: Path, tunesift: Command, spoilt: str, said: str
) -> None:
    before, path = weights(place / "tuned"), place / "tuned.run/checkpoints/tune" / spoilt
    path.unlink() if said == "is missing" else change_a_byte(path)
    told = tunesift("verify", "tuned.run")
    assert (told.code, f"checkpoints/tune/{spoilt}: {said}" in told.err + told.out) == (74, True)
    mended = tunesift("repair", "tuned.run")
    assert (mended.code, "the model will be trained again." in mended.out) == (0, True)
    again = tunesift(*WORDS, "--json")
    assert (again.code, json.loads(again.out)["worked"]) == (0, 3)
    assert weights(place / "tuned") == before == weights(place / "tuned.run/checkpoints/tune/model")
    assert tunesift("verify", "tuned.run").code == 0


def test_a_folder_that_stands_there_and_a_files_name_are_refused_before_any_work(
    place: Path, tunesift: Command
) -> None:
    (place / "mine").mkdir()
    (place / "mine/precious.txt").write_text("mine")
    words = ["tune", "in.json", "-o", "mine", *WORDS[4:]]
    told = tunesift(*words)
    assert (told.code, told.err) == (73, "mine: exists already; choose another output, or remove it.\n")
    assert (place / "mine/precious.txt").read_text() == "mine"
    told = tunesift("tune", "in.json", "-o", "model.json", *WORDS[4:])
    assert (told.code, told.err) == (
        64, "output: model.json is a file's name; tune leaves a model's folder, write -o model.\n",
    )  # fmt: skip
    assert not (place / "mine.run").exists()
    assert not (place / "model.json.run").exists()


def test_a_plan_tells_updates_tokens_and_memory_and_writes_nothing(place: Path, tunesift: Command) -> None:
    """35,488 parameters; 3 epochs of the 24 records that are not held out, in sixes; six of the longest on the device."""
    there = sorted(place.iterdir())
    sizes = [len(text.encode()) for text in texts_of(place)]
    words = [*WORDS[4:6], "student.device=cpu", "tuner.batch=6", "tuner.held_out=0.2"]
    told = tunesift("plan", "tune", "in.json", *words).out.splitlines()
    assert told[1] == "  stage measure: 30 items, no model"
    found = re.fullmatch(
        r" +at most 12 updates, about ([\d,]+) tokens, about \d+ MB of memory \(142 kB weights, 426 kB gradients and "
        r"AdamW, (\d+) MB activations, (\d+) MB logits\)", told[3],
    )  # fmt: skip
    assert found, told[3]
    assert int(found[1].replace(",", "")) == pytest.approx(sum(sizes) / 4 / 30 * 72, abs=2)
    at_once = 6 * round(max(sizes) / 4)
    assert f"{found[2]} MB" == told_bytes(4 * at_once * (18 * 32 + 4 * 64 + 2 * 32))
    assert f"{found[3]} MB" == told_bytes(at_once * (33 * 264 + 4 * 2 * 32))
    assert sorted(place.iterdir()) == there


@pytest.mark.parametrize(("words", "code", "said"), [
    (["student.dtype=float16"], 64, "student.dtype: float16 is too coarse"),
    (["tuner.lora.targets=[q_proj,q_projj]"], 64, "tuner.lora.targets: tiny has no linear layer q_projj; it has down_proj, "
     "gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."),
    (["tuner.lora.targets=[embed_tokenss]"], 64, "has no linear layer embed_tokenss"),
    (["tuner.packing=true", "student.device=cpu"], 64, "tuner.packing: records in one row see one another"),
    (["student.device=cuda:99"], 69, 'device: "cuda:99" is not to be had here, of '),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused_by_the_plan_and_before_any_record_is_measured(
    place: Path, tunesift: Command, words: list[str], code: int, said: str
) -> None:
    for told in (tunesift("plan", *WORDS[:2], *WORDS[4:], *words),
                 tunesift(*WORDS[:3], "other", *WORDS[4:], *words, "--quiet")):  # fmt: skip
        assert (told.code, said in told.err) == (code, True), told
    assert not (place / "other.run").exists()


def test_a_layer_that_is_there_is_trained_and_one_that_may_be_called_otherwise_is_not_judged(place: Path) -> None:
    lora = LoRA(targets=("q_proj", "down_proj"))
    check_trainable(TransformersModel(name="tiny"), SFT(lora=lora))
    config = json.loads((place / "tiny/config.json").read_text())
    (place / "tiny/config.json").write_text(json.dumps({**config, "model_type": "another"}))
    check_trainable(TransformersModel(name="tiny"), SFT(lora=LoRA(targets=("q_projj",))))


@pytest.mark.slow
def test_a_command_that_is_killed_in_the_middle_goes_on_to_the_same_weights(place: Path, tunesift: Command) -> None:
    """SIGKILL ends the command, and so the training beside it; the same command makes what nobody disturbed made."""
    words = ["tune", "in.json", *WORDS[4:6], "tuner.steps=30", "tuner.batch=4", "tuner.save_every=3"]
    assert tunesift(*words, "-o", "whole", "--quiet").code == 0
    for updates in (9, 18):
        _killed_after(updates, place, [*words, "-o", "broken", "--quiet"])
        told = tunesift("inspect", "broken.run").out
        assert "not complete" in told
        assert int(re.findall(r"training tune: (\d+) updates done", told)[0]) >= updates
    found = tunesift(*words, "-o", "broken", "--json")
    assert (found.code, 0 < json.loads(found.out)["worked"] <= 12) == (0, True)
    assert weights(place / "broken") == weights(place / "whole")
    assert tunesift("verify", "broken.run").code == 0


def _killed_after(updates: int, place: Path, words: list[str]) -> None:
    """SIGKILL as soon as a checkpoint of so many updates is whole; the training beside the command ends by itself."""
    stage = place / "broken.run/checkpoints/tune"
    command = subprocess.Popen([sys.executable, "-m", "tunesift", *words], cwd=place, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: any(int(path.parent.name.rpartition("-")[2]) >= updates
                          for path in stage.glob("checkpoint-*/_COMPLETE.json")))  # fmt: skip
    finally:
        command.kill()
    assert command.wait(timeout=60) == -signal.SIGKILL
    _wait(lambda: not _trains(place))


def _wait(until: Callable[[], bool]) -> None:
    ends = time.monotonic() + 300
    while not until():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.005)


def _trains(place: Path) -> bool:
    """Whether a training's process works in this folder, as far as the system tells."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (
                b"tunesift.tuning.child" in (path / "cmdline").read_bytes()
                and (path / "cwd").resolve() == place.resolve()
            ):
                return True
    return False
