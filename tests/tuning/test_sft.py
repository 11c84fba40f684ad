"""Supervised fine-tuning in a process of its own: the right loss, exact resuming, and a sentence for what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from harness.tiny import MakeTiny
from harness.training import Heard, here, letters, record, student
from tunesift import LoRA, Record, Run, Sampling, Span, TransformersModel, Tuning, read_dataset
from tunesift.datasets import Dataset
from tunesift.errors import DiskFull, ModelRefused, RecipeError, Stopped, TuningError
from tunesift.methods.tune import Tune
from tunesift.models.folders import tokenizer
from tunesift.models.turns import Encoded, Encoder
from tunesift.readiness import check_here
from tunesift.running.local import Local
from tunesift.running.progress import Progress
from tunesift.running.sealing import sealed
from tunesift.running.step import Checkpoint
from tunesift.tuning import beats, process, sft_trainer, trainer
from tunesift.tuning.process import Trained, student_from, told
from tunesift.tuning.sft import SFT

pytest.importorskip("trl", reason='needs the "train" extra')

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]
"""What TRL, PEFT and transformers say to one another is theirs."""

SMALL_DISKS = (66_450, 66_300, 66_150)
"""Kilobytes of disks with room for the run, what it holds back, and less than two or three checkpoints."""

SMALL = SFT(batch=4, steps=6, learning_rate=3e-3, save_every=2, device_batch=4, gradient_checkpointing=False)


@pytest.fixture(scope="module")
def folder(make_tiny: MakeTiny) -> Path:
    return student(make_tiny)


def trained(place: Path, folder: Path, tuner: SFT, data: Dataset[Record]) -> tuple[Checkpoint, Trained]:
    with Run(place, Local()) as run:
        made = run.once("tune", Tuning(student=TransformersModel(name=str(folder)), tuner=tuner), data)
    return made, told(made)


def losses(found: Trained, of: str = "loss") -> list[float]:
    return [h[of] for h in found.history if of in h]


def orders(found: Trained) -> list[float]:
    return [h["order"] for h in found.history if "order" in h]


def encoder(folder: Path) -> Encoder:
    return Encoder(tokenizer(str(folder)), "chat")


def naive_loss(folder: Path, rows: list[Record]) -> float:
    """Mean over all tokens of all responses and their ends, by a loop over tokens, with nothing padded."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    encode, nats = encoder(folder), []
    for row in rows:
        found = encode(row)
        assert isinstance(found, Encoded)
        with torch.no_grad():
            logits = model(torch.tensor([found.ids])).logits[0].double()
        for place in range(found.start, len(found.ids)):
            nats.append(-float(torch.log_softmax(logits[place - 1], 0)[found.ids[place]]))
    return sum(nats) / len(nats)


def test_the_first_loss_is_that_of_the_responses_alone_and_the_model_is_there(tmp_path: Path, folder: Path) -> None:
    data = letters(4)
    made, found = trained(tmp_path / "run", folder, replace(SMALL, held_out=0.0), data)
    assert losses(found)[0] == pytest.approx(naive_loss(folder, list(data)), abs=2e-4)
    assert (found.steps, found.records, found.left_out) == (6, 4, {})
    assert losses(found)[-1] < losses(found)[0]
    names = {path.name for path in made.path.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl", ".pth")) for name in names)
    assert {path.name for path in made.path.parent.iterdir()} == {"begun.json", "log.txt", "model"}

    tuned = student_from(made, TransformersModel(name=str(folder)))
    span = [Span((data[0].messages[0],), data[0].response)]
    before, after = (m.loss(span)[0] for m in (TransformersModel(name=str(folder)), tuned))
    assert after.mean < before.mean  # type: ignore[union-attr]

    moved = shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    again = student_from(replace(made, path=Path(moved) / "checkpoints/tune/model"), tuned)
    assert (again.identity(), again.loss(span)) == (tuned.identity(), tuned.loss(span))


@pytest.mark.slow
def test_two_hundred_updates_lower_the_held_out_loss_and_two_kills_change_neither_curve_nor_order(
    tmp_path: Path, folder: Path
) -> None:
    """R40: sample order identical, also within an epoch, in the second one, and at the second time; equal losses."""
    tuner = replace(SMALL, steps=200, batch=8, device_batch=4, save_every=9, held_out=0.1)
    data = letters(400)
    made, whole = trained(tmp_path / "whole", folder, tuner, data)
    held_out = losses(whole, "eval_loss")
    assert held_out[-1] < 0.75 * held_out[0]
    for at in (30, 120):  # the 45 updates of an epoch: within the first, and within the third
        with killed_at(at), pytest.raises(TuningError, match=r"signal 9 ended the training after step \d+"):
            trained(tmp_path / "broken", folder, tuner, data)
    again, broken = trained(tmp_path / "broken", folder, tuner, data)
    assert orders(broken) == orders(whole)
    assert len(orders(whole)) == len(set(orders(whole))) == 200
    assert broken.history == whole.history
    assert (again.path / "model.safetensors").read_bytes() == (made.path / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_thirty_kills_while_checkpoints_are_saved_leave_the_newest_whole_one(tmp_path: Path, folder: Path) -> None:
    """R40: a checkpoint that was cut off is passed over, and what was trained twice comes to the same."""
    tuner = replace(SMALL, steps=70, save_every=1)
    data = letters(40)
    _, whole = trained(tmp_path / "whole", folder, tuner, data)
    stage, cut, met = tmp_path / "broken/checkpoints/tune", 0, 0
    while met < 30:
        with killed_when(lambda: _half_written(stage)) as happened, suppress(TuningError):
            trained(tmp_path / "broken", folder, tuner, data)
        met += happened.is_set()
        left = [path for path in stage.glob("checkpoint-*") if sealed(path) is None]
        cut += bool(left)
        if (stage / "model").exists():
            break
    assert met >= 30
    assert cut >= 10  # the others were sealed, or begun anew, in the moment before the signal came
    _, broken = trained(tmp_path / "broken", folder, tuner, data)
    assert losses(broken) == losses(whole)
    assert orders(broken) == orders(whole)


def _half_written(stage: Path) -> bool:
    return any((path / "model.safetensors").exists() and not (path / "_COMPLETE.json").exists()
               for path in stage.glob("checkpoint-*"))  # fmt: skip


@contextmanager
def killed_when(comes: Callable[[], bool]) -> Iterator[threading.Event]:
    """The training's process gets SIGKILL as soon as something is the case."""
    begun: list[subprocess.Popen[bytes]] = []
    over, happened = threading.Event(), threading.Event()
    original = process._begun

    def noted(log: int) -> subprocess.Popen[bytes]:
        begun.append(original(log))
        return begun[-1]

    def watch() -> None:
        while not over.wait(0.0005):
            if begun and comes():
                os.kill(begun[-1].pid, signal.SIGKILL)
                happened.set()
                return

    process._begun = noted
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield happened
    finally:
        over.set()
        watcher.join()
        process._begun = original


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """The training's process gets SIGKILL once it has said that so many updates are done."""
    reached = threading.Event()
    original = process._lines

    def heard(child: Any, watch: Any) -> Iterator[bytes]:
        for line in original(child, watch):
            yield line
            if f'"step": {step},'.encode() in line:
                reached.set()

    process._lines = heard
    try:
        with killed_when(reached.is_set) as happened:
            yield
        assert happened.is_set()
    finally:
        process._lines = original


@pytest.mark.slow
def test_parts_of_an_update_come_to_the_same_as_the_update_in_one(tmp_path: Path, folder: Path) -> None:
    data = letters(30)
    curves = []
    for size in (8, 2):
        tuner = replace(SMALL, batch=8, device_batch=size, gradient_checkpointing=size == 2)
        curves.append(trained(tmp_path / str(size), folder, tuner, data)[1])
    assert losses(curves[0]) == pytest.approx(losses(curves[1]), abs=1e-4)


@pytest.mark.slow
def test_adapters_are_a_model_of_their_own_and_load_as_one(tmp_path: Path, folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    data = letters(16)
    tuner = replace(SMALL, learning_rate=3e-2, lora=LoRA(rank=4, dropout=0.0))
    made, found = trained(tmp_path / "run", folder, tuner, data)
    assert losses(found)[-1] < losses(found)[0]
    assert not (made.path / "model.safetensors").exists()
    model = TransformersModel(name=str(made.path))
    row = encoder(folder)(data[0])
    assert isinstance(row, Encoded)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(made.path)).eval()
    with torch.no_grad():
        logits = adapted(torch.tensor([row.ids])).logits[0].double()
    target = row.ids[row.start :]
    expected = [-float(torch.log_softmax(logits[row.start - 1 + n], 0)[i]) for n, i in enumerate(target)]
    said = model.loss([Span((data[0].messages[0],), data[0].response)])[0]
    assert said.nats == pytest.approx(expected[: len(said.nats)], abs=1e-3)  # type: ignore[union-attr]
    assert model.chat([(data[0].messages[0],)], Sampling(max_tokens=5))
    assert model.most_tokens() == 256
    other = student_from(made, model)
    assert other.loss([Span("x", "y")]) == model.loss([Span("x", "y")])


def test_adapters_name_their_model_wherever_one_stands(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    here(tmp_path, Path(folder.name), replace(SMALL, steps=1, lora=LoRA(rank=2)), letters(4))
    said = json.loads((tmp_path / "model/adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(folder)
    monkeypatch.chdir(tmp_path)
    assert TransformersModel(name="model").loss([Span("x", "y")])


def test_adapters_beside_adapters_are_refused_since_they_would_name_another_model(tmp_path: Path, folder: Path) -> None:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    with pytest.raises(RecipeError, match=r"tuner.lora: .* holds adapters itself.* leave tuner.lora out"):
        trained(tmp_path / "run", adapters, replace(SMALL, lora=LoRA()), letters(4))
    method = Tune(student=TransformersModel(name=str(adapters)), tuner=replace(SMALL, lora=LoRA()))
    with pytest.raises(RecipeError, match="holds adapters itself"):
        check_here(method)
    check_here(replace(method, tuner=SMALL))
    check_here(replace(method, student=TransformersModel(name=str(folder))))


def test_a_share_of_so_few_that_none_is_held_out_is_told(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tuning, "__call__", lambda asked, data, into, _: here(into, folder, asked.tuner, data))
    for share, told_of in ((0.1, [4]), (0.25, []), (0.0, [])):
        method = Tune(student=TransformersModel(name=str(folder)), tuner=replace(SMALL, steps=1, held_out=share))
        with Run(tmp_path / str(share), Local()) as run:
            assert list(method(letters(4), run).notes.values()) == told_of, share


def test_of_preference_pairs_it_is_told_that_the_chosen_answer_alone_is_trained_on(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tuning, "__call__", lambda asked, data, into, _: here(into, folder, asked.tuner, data))
    pairs = [{"prompt": f"Say {n}.", "chosen": "It is so.", "rejected": "No."} for n in range(4)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    method = Tune(student=TransformersModel(name=str(folder)), tuner=replace(SMALL, steps=1))
    with Run(tmp_path / "run", Local()) as run:
        notes = method(read_dataset(tmp_path / "pairs.json"), run).notes
    said = "preference pairs, of which the chosen answer is trained on and the rejected one is not read"
    assert notes == {said: 4}


def test_weights_of_sixteen_bits_without_range_are_not_all_trained(folder: Path) -> None:
    """Four updates of the embedded scorer at 1e-4 took the loss from 4.6 to 89, and left a model."""
    method = Tune(student=TransformersModel(name=str(folder), dtype="float16"), tuner=SMALL)
    with pytest.raises(RecipeError, match="float16 is too coarse for weights that are all trained; write float32 or"):
        check_here(method)
    check_here(replace(method, tuner=replace(SMALL, lora=LoRA())))
    check_here(replace(method, student=replace(method.student, dtype="bfloat16")))


def test_the_held_out_loss_is_measured_by_the_updates_there_are(tmp_path: Path, folder: Path) -> None:
    """Of eight records six are held out; twenty updates of the other two are looked at twenty times, not five."""
    tuner = replace(SMALL, steps=None, epochs=10.0, batch=1, device_batch=1, held_out=0.75)
    found = here(tmp_path, folder, tuner, letters(8))
    assert [h["step"] for h in found.history if "eval_loss" in h] == list(range(21))


def test_records_beyond_the_limit_are_left_out_and_counted_and_none_is_cut(tmp_path: Path, folder: Path) -> None:
    data = Dataset.of([*letters(5), record("long", "Say it", "the tin " * 100), record("mute", "Say it", " ")])
    most = max(len(found.ids) for row in letters(5) if isinstance(found := encoder(folder)(row), Encoded))
    found = here(tmp_path, folder, replace(SMALL, steps=2, max_length=most), data)
    assert (found.records, found.left_out) == (5, {"too-long": 1, "empty": 1})
    shorter = here(tmp_path, folder, replace(SMALL, steps=2, max_length=most - 1), data)
    assert shorter.left_out["too-long"] > 1


def test_a_training_says_that_it_moves_however_long_an_update_takes(tmp_path: Path, folder: Path) -> None:
    """Else a watchdog takes it for a standstill: parts of updates, of what is held out, and of what is read."""
    here(tmp_path, folder, replace(SMALL, steps=2, device_batch=1), letters(8), heard := Heard())
    assert (heard.steps, heard.beats) == ([0, 1, 2], 2 * (4 - 1))
    here(tmp_path, folder, replace(SMALL, steps=1, held_out=0.5), letters(8), heard := Heard())
    assert heard.beats == 2  # one part of four records, before the first update and after it
    short = Dataset.of(record(f"r{n}", "Say it", "it") for n in range(2050))
    here(tmp_path, folder, replace(SMALL, steps=1), short, heard := Heard())
    assert heard.beats == 2  # every 1,024 records


def test_few_items_that_take_long_to_read_are_no_standstill(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word every 20 seconds, not every 1,024 items: of large photographs these take longer than a watchdog waits."""
    clock, heard = SimpleNamespace(now=0.0), Heard()
    monkeypatch.setattr(beats, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def slow(_: Record) -> trainer.Row:
        clock.now += 15.0
        return trainer.Row({"input_ids": [1]}, 1, 1)

    job = trainer.Job(TransformersModel(name=str(folder)), SMALL, letters(5), tmp_path)
    rows = trainer.Rows(job, slow, pa.schema([("input_ids", pa.list_(pa.int32()))]), heard)
    assert (rows.count, heard.beats) == (5, 2)  # after 30 seconds and after 60


def test_weights_that_take_long_to_load_are_no_standstill(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word every so often while they load, and none once they are there, or cannot be loaded."""
    heard = Heard()

    def slow(*_: object) -> Any:  # Any: what a training loads
        for _ in range(1000):
            if heard.beats >= 3:
                raise ModelRefused("these weights cannot be loaded; give others.")
            time.sleep(0.01)

    monkeypatch.setattr(beats, "BEAT_S", 0.01)
    monkeypatch.setattr(sft_trainer, "load", slow)
    with pytest.raises(ModelRefused, match="cannot be loaded"):
        here(tmp_path, folder, SMALL, letters(4), heard)
    said = heard.beats
    time.sleep(0.1)
    assert heard.beats == said


def test_beside_a_checkpoint_lies_nothing_that_is_not_the_runs(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(TuningError, match="is no whole checkpoint"):
        here(tmp_path, folder, replace(SMALL, steps=3), letters(4), Heard(stopped=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "tokens"]


@pytest.mark.parametrize(("tuner", "sentence"), [
    (replace(SMALL, max_length=3), r"no record can be trained on \(4 too-long\); raise tuner.max_length"),
    (replace(SMALL, lora=LoRA(targets=("q_projj",))),
     r"has no linear layer q_projj; it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
    (replace(SMALL, packing=True), "see one another without FlashAttention"),
    (replace(SMALL, learning_rate=1e30, warm_up=0.0), "the loss is no number at step"),
])  # fmt: skip
def test_what_cannot_be_trained_is_a_sentence(tmp_path: Path, folder: Path, tuner: SFT, sentence: str) -> None:
    with pytest.raises(TuningError, match=sentence):
        here(tmp_path, folder, tuner, letters(4))
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_student_without_a_chat_template_is_a_sentence(tmp_path: Path, make_tiny: MakeTiny) -> None:
    with pytest.raises(
        ModelRefused, match="has no chat template; give one that has, or set template to alpaca or bare"
    ):
        trained(tmp_path / "run", student(make_tiny, None), SMALL, letters(4))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_disk_that_fills_while_a_checkpoint_is_saved_is_a_sentence_and_room_lets_it_go_on(
    tmp_path: Path, folder: Path
) -> None:
    rows = [{"instruction": r.messages[0].text, "output": r.response} for r in letters(12)]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    words = [str(tmp_path / "disk"), str(folder), str(tmp_path / "in.json")]
    script = str(Path(__file__).parents[1] / "harness/full_training.py")

    def tried(kilobytes: int) -> list[Any]:
        done = subprocess.run(["unshare", "-m", sys.executable, script, *words, str(kilobytes)],
                              capture_output=True, text=True, timeout=600)  # fmt: skip
        shutil.rmtree(tmp_path / "disk")
        assert not done.stderr, done.stderr
        found: list[Any] = json.loads(done.stdout)
        return found

    whole, _, history = tried(512_000)
    assert whole["code"] == 0
    met = []
    for kilobytes in SMALL_DISKS:
        first, second, again = tried(kilobytes)
        assert first["code"] in (0, DiskFull.exit_code), first
        met += ["no room for a checkpoint after step" in first["said"]]
        assert second["code"] == 0
        assert again == history
    assert any(met), "no disk was full just when a checkpoint was saved"


@dataclass
class Asking(Progress):
    """Asks the run to stop once five updates are done."""

    run: Run | None = None
    done: int = 0

    def advance(self, stage: str, items: int, failed: int) -> None:
        self.done += items
        if self.done >= 5 and self.run is not None:
            self.run.stop.ask()


def test_a_stop_saves_and_the_next_start_goes_on_to_the_same(tmp_path: Path, folder: Path) -> None:
    tuner, data = replace(SMALL, steps=30, save_every=100), letters(12)
    with Run(tmp_path / "run", Local(), progress=(asking := Asking())) as run:
        asking.run = run
        with pytest.raises(Stopped, match="start the same command again to go on"):
            run.once("tune", Tuning(student=TransformersModel(name=str(folder)), tuner=tuner), data)
    saved = [path.name for path in (tmp_path / "run/checkpoints/tune").glob("checkpoint-*")]
    assert len(saved) == 1
    step = int(saved[0].split("-")[1])
    assert 0 < step < 30
    with Run(tmp_path / "run", Local()) as run:
        made = run.once("tune", Tuning(student=TransformersModel(name=str(folder)), tuner=tuner), data)
        assert run.stages[0].worked == 30 - step
    assert [h["step"] for h in told(made).history if "loss" in h] == list(range(1, 31))


def test_a_kill_between_the_last_checkpoint_and_the_model_costs_nothing_and_adds_no_update(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, tuner = letters(10), replace(SMALL, held_out=0.0, batch=2, device_batch=2, steps=3, save_every=3)
    plain = here(tmp_path / "plain", folder, tuner, data)
    seal, dead = trainer.seal, []

    def dies(at: Path, said: Any, digests: bool = False) -> None:  # Any: JSON
        if at.name == "model" and not dead:
            dead.append(at)
            raise OSError("the process is gone")
        seal(at, said, digests)

    monkeypatch.setattr(trainer, "seal", dies)
    with pytest.raises(OSError, match="the process is gone"):
        here(tmp_path / "cut", folder, tuner, data)
    assert dead, "nothing was cut off"
    again = here(tmp_path / "cut", folder, tuner, data)
    assert (again.steps, again.history) == (3, plain.history)
    one, other = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("plain", "cut"))
    assert one == other
