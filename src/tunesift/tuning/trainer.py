"""What every training has in common, in the process that trains: columns, arguments, checkpoints, what is left."""

from __future__ import annotations

import hashlib
import math
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol

import pyarrow as pa

from tunesift.datasets import Dataset
from tunesift.errors import MissingExtra, TuningError, shown
from tunesift.models.folders import local_folder
from tunesift.models.loading import usable_device
from tunesift.models.transformers import TransformersModel
from tunesift.records import Failure, noun
from tunesift.running.sealing import newest, seal
from tunesift.running.training import CHECKPOINT, DATA, MODEL
from tunesift.settings import Json
from tunesift.tuning.base import Training
from tunesift.tuning.beats import Beats, Telling, beating
from tunesift.tuning.reward_best import BEST
from tunesift.tuning.student import limit_of

KEPT = 2
"""Checkpoints that stay: while one is written, the one before it is whole."""
MOST_KEPT = 2_000
"""Updates whose loss is kept with the model; of more, every second, fourth and so on."""
EVALUATIONS = 20
"""Times that the held-out loss is measured."""
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""What transformers calls them."""
_SAID = ("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm", "order")
"""What is kept of every training's history."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained, how, on what, and where it goes."""

    student: TransformersModel
    tuner: Training
    data: Dataset[Any]  # Any: of what the tuner reads
    into: Path

    @property
    def limit(self) -> int | None:
        """Most tokens of a record; None where neither the settings nor the student say."""
        return limit_of(self.student, self.tuner)


@dataclass(frozen=True, slots=True)
class Row:
    """One item as the trainer reads it."""

    columns: Mapping[str, Any]  # Any: numbers, and lists of them
    tokens: int
    """All that are read of it in an epoch."""
    longest: int
    """Tokens of its longest text, which the limit is for."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a learner builds TRL's trainer of."""

    arguments: Mapping[str, Any]  # Any: as TRL's settings have them
    """What all of TRL's trainers are told."""
    rows: Rows
    noted: Callable[[type[Any]], type[Any]]  # Any: TRL's own classes
    """Makes a trainer note what each update reads."""


class Learner(Protocol):
    """One kind of training: what its rows are, and which of TRL's trainers reads them."""

    columns: pa.Schema
    said: tuple[str, ...]
    """What else of its history is kept, by TRL's names."""

    def load(self, job: Job, device: str) -> tuple[Any, Any]:  # Any: transformers' own classes
        """The model, and its tokenizer."""
        ...

    def encoder(self, job: Job, tokenizer: Any) -> Callable[[Any], Row | Failure]:  # Any: of what the tuner reads
        """Turns items into rows."""
        ...

    def trainer(self, job: Job, model: Any, tokenizer: Any, given: Given) -> Any:  # Any: TRL's own class
        """TRL's trainer of these."""
        ...

    def save(self, job: Job, trainer: Any, into: Path) -> Mapping[str, Json]:  # Any: TRL's own class
        """Leave the model as others load it; what else is to be said of it."""
        ...


def train(job: Job, learner: Learner, telling: Telling) -> None:
    """Train from the newest whole checkpoint on, and leave a sealed model; only a checkpoint where asked to stop."""
    check_installed()
    with beating(telling):
        model, tokenizer = learner.load(job, usable_device(job.student.device))
    rows = Rows(job, learner.encoder(job, tokenizer), learner.columns, telling)
    with beating(telling):  # it may load a reference
        trainer = _trainer(job, learner, (model, tokenizer), rows, telling)
    begin = newest(job.into, CHECKPOINT)
    trainer.args.eval_on_start = trainer.eval_dataset is not None and begin is None
    if begin is not None and _is_last(trainer, begin):
        telling.at(trainer.state.global_step, trainer.state.max_steps)
    else:
        trainer.train(resume_from_checkpoint=str(begin) if begin else None)
    if trainer.state.global_step < trainer.state.max_steps:
        return
    _leave(job, learner, trainer, rows)


def _is_last(trainer: Any, begin: Path) -> bool:  # Any: TRL's own class
    """Whether a checkpoint is the end of a training, whose weights and state the trainer then has; transformers would
    make one more update where the end is no end of an epoch."""
    from transformers import TrainerState

    state = TrainerState.load_from_json(str(begin / "trainer_state.json"))
    if state.global_step < state.max_steps:
        return False
    trainer.state = state
    trainer._load_from_checkpoint(str(begin))
    return True


class Rows:
    """The tokens of the records, in files that the trainer maps; what is left out is counted."""

    def __init__(
        self, job: Job, encode: Callable[[Any], Row | Failure], columns: pa.Schema, telling: Telling
    ) -> None:  # Any: of what the tuner reads
        self._encode, self._columns, self._telling = encode, columns, telling
        self.folder = job.into / "tokens"
        self.left_out: Counter[str] = Counter()
        self.tokens = self.count = 0
        self._limit = job.limit or sys.maxsize
        rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        aside = job.tuner.held_out_of(list(job.data.ids()))
        self.held_out = self._written("held-out", (r for r in job.data if r.id in aside)) if aside else None
        self.tokens = self.count = 0
        self.train = self._written("train", (r for r in job.data if r.id not in aside))
        if not self.count:
            raise TuningError(f"{job.into}: no {noun(job.tuner.reads)} can be trained on ({self._told()}); raise "
                              "tuner.max_length, or give others.")  # fmt: skip

    def _told(self) -> str:
        return ", ".join(f"{count} {why}" for why, count in self.left_out.most_common()) or "there is none"

    def _written(self, name: str, records: Iterable[Any]) -> Any:  # Any: what is read; datasets' own class
        from datasets import Dataset as Columns

        path = self.folder / f"{name}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, self._columns) as writer:
            for batch in self._batches(records):
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=self._columns))
        return Columns.from_file(str(path))

    def _batches(self, records: Iterable[Any]) -> Iterator[list[Mapping[str, Any]]]:  # Any: what is read
        batch: list[Mapping[str, Any]] = []
        beats = Beats(self._telling)
        for record in records:
            beats.moved()
            found = self._encode(record)
            if isinstance(found, Failure):
                self.left_out[found.kind] += 1
            elif found.longest > self._limit:
                self.left_out["too-long"] += 1
            else:
                batch.append(found.columns)
                self.tokens += found.tokens
                self.count += 1
            if len(batch) == 1024:
                yield batch
                batch = []
                self._telling.say(beat=True)
        yield batch


def check_installed() -> None:
    """Raise `MissingExtra` where a library of tuning is missing."""
    if any(find_spec(library) is None for library in ("trl", "peft", "datasets")):
        raise MissingExtra('tuning needs the "train" extra: pip install "tunesift[train]".')


def _trainer(
    job: Job, learner: Learner, loaded: tuple[Any, Any], rows: Rows, telling: Telling
) -> Any:  # Any: libraries' classes
    from transformers import PrinterCallback

    order = _Order()
    model, tokenizer = loaded
    made = learner.trainer(
        job, model, tokenizer, Given(_arguments(job, str(model.device.type), rows), rows, order.noted)
    )
    made.add_callback(_callback(job, telling, order))
    made.remove_callback(PrinterCallback)  # a line for every update
    made.create_model_card = lambda **_: None  # it would lie beside the checkpoints, and says nothing of the run
    return made


def _arguments(job: Job, device: str, rows: Rows) -> dict[str, Any]:  # Any: as TRL's settings have them
    tuner = job.tuner
    size, parts = tuner.parts
    updates = tuner.updates(rows.count)
    return dict(
        output_dir=str(job.into),
        num_train_epochs=tuner.epochs, max_steps=tuner.steps or -1,
        per_device_train_batch_size=size, per_device_eval_batch_size=size, gradient_accumulation_steps=parts,
        learning_rate=tuner.learning_rate, lr_scheduler_type=_SCHEDULES[tuner.schedule],
        warmup_steps=tuner.warm_up if tuner.warm_up < 1 else updates, weight_decay=tuner.weight_decay,
        bf16=precision(tuner, device) == "bfloat16", fp16=False, use_cpu=device == "cpu",
        seed=tuner.seed, data_seed=tuner.seed, **{_checkpointing(): tuner.gradient_checkpointing},
        save_strategy="steps", save_steps=tuner.save_every, save_total_limit=KEPT,
        eval_strategy="no" if rows.held_out is None else "steps", eval_steps=max(1, updates // EVALUATIONS),
        logging_strategy="steps", logging_steps=1, logging_nan_inf_filter=False,
        report_to="none", disable_tqdm=True,
    )  # fmt: skip


def _checkpointing() -> str:
    """What this release of transformers calls it."""
    from transformers import TrainingArguments

    new = "activation_checkpointing"
    return new if new in TrainingArguments.__dataclass_fields__ else "gradient_checkpointing"


def precision(tuner: Training, device: str) -> str:
    """Of the arithmetic on a device: what is set, or bfloat16 where a GPU has it."""
    import torch

    if tuner.precision != "auto":
        return tuner.precision
    return "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def adapters(job: Job, model: Any, task: str = "CAUSAL_LM") -> Any:  # Any: transformers' and PEFT's own classes
    """What PEFT is told of adapters, those of the head excepted; None where all weights are trained."""
    import torch
    from peft import LoraConfig

    if (lora := job.tuner.lora) is None:
        return None
    if folder := local_folder(job.student.location):
        model.name_or_path = str(folder.absolute())  # what the adapters say they stand beside, wherever one stands
    names = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    known = sorted({name.rpartition(".")[2] for name in names} - {"lm_head", "score"})
    if unknown := [name for name in lora.targets if name not in known]:
        said = f"tuner.lora.targets: {shown(job.student.name)} has no linear layer {shown(unknown[0])}"
        raise TuningError(f"{said}; it has {', '.join(known)}.")
    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, task_type=task,
                      target_modules=list(lora.targets) or "all-linear",
                      revision=job.student.revision)  # fmt: skip


class _Order:
    """What has been read since the last update, as a digest of its tokens."""

    def __init__(self) -> None:
        self._read = hashlib.sha256()

    def noted(self, trainer: type[Any]) -> type[Any]:  # Any: TRL's own classes
        """The trainer, which notes what it reads."""
        read = self.read

        class Trainer(trainer):  # type: ignore[misc]  # a class of a library without types
            def training_step(self, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:  # Any: as TRL has them
                read(inputs["input_ids"])
                return super().training_step(model, inputs, *more, **named)

        return Trainer

    def read(self, ids: Any) -> None:  # Any: torch's own class
        """A part of a batch is read."""
        self._read.update(ids.cpu().numpy().tobytes())

    def taken(self) -> int:
        """32 bits of the digest; the next update begins anew."""
        bits = int.from_bytes(self._read.digest()[:4], "big")
        self._read = hashlib.sha256()
        return bits


def _callback(job: Job, telling: Telling, order: _Order) -> Any:  # Any: transformers' own class
    """Who tells how far a training is, and seals what it saves."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]  # a class of a library without types
        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # Any: theirs
            telling.at(state.global_step, state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # Any: theirs
            telling.at(state.global_step, state.max_steps)
            if telling.stopped:
                control.should_save = control.should_training_stop = True

        def on_prediction_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # Any: theirs
            telling.say(beat=True)

        on_substep_end = on_prediction_step  # of a part of an update

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **more: Any) -> None:  # Any: theirs
            if "loss" not in logs:
                return
            if not math.isfinite(logs["loss"]):
                raise TuningError(f"{job.into}: the loss is no number at step {state.global_step}; lower "
                                  "tuner.learning_rate.")  # fmt: skip
            state.log_history[-1]["order"] = order.taken()

        def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # Any: theirs
            seal(job.into / f"{CHECKPOINT}-{state.global_step}", {"step": state.global_step})

    return Callback()


def save(job: Job, trainer: Any, into: Path) -> Mapping[str, Json]:  # Any: TRL's own class
    """Leave the model and its tokenizer as TRL saves them; nothing else is to be said of it."""
    if (lora := job.tuner.lora) is not None and lora.merged:
        trainer.model = trainer.model.merge_and_unload()
    trainer.save_model(str(into))
    return {}


def _leave(job: Job, learner: Learner, trainer: Any, rows: Rows) -> None:  # Any: TRL's own class
    """The model as others load it, with what its training says of itself; checkpoints are no longer wanted."""
    into = job.into / MODEL
    rmtree(into, ignore_errors=True)
    said = learner.save(job, trainer, into)
    (into / "training_args.bin").unlink(missing_ok=True)
    device = trainer.model.device.type
    seal(into, {
        "history": list(_history(trainer.state, (*_SAID, *learner.said))),
        "steps": trainer.state.global_step, "records": rows.count, "tokens": rows.tokens,
        "left_out": dict(rows.left_out), "device": device, "precision": precision(job.tuner, device),
        "peak_bytes": _peak(device), **said,
    }, digests=True)  # fmt: skip
    aside = (path for kept in (CHECKPOINT, BEST) for path in job.into.glob(f"{kept}-*"))
    for path in (*aside, rows.folder, job.into / DATA):
        rmtree(path, ignore_errors=True)


def _history(state: Any, wanted: Sequence[str]) -> Iterator[Json]:  # Any: transformers' own class
    """The losses, step by step: all that were held out, an even part of the others, the last one included."""
    every = 2 ** max(0, math.ceil(math.log2(state.global_step / MOST_KEPT)))
    for entry in state.log_history:
        is_kept = entry["step"] % every == 0 or entry["step"] == state.global_step
        if "eval_loss" in entry or ("loss" in entry and is_kept):
            yield {name: entry[name] for name in wanted if name in entry}


def _peak(device: str) -> int:
    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
