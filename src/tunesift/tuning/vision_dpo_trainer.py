"""Direct preference optimisation of what reads images, by TRL, in the process that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesift.images import picture
from tunesift.models.folders import not_taken
from tunesift.models.loading import load
from tunesift.models.templates import TemplateFault
from tunesift.models.vision import NOT_READ, VisionModel, Writer, not_read
from tunesift.records import Failure, Preference, RowFault
from tunesift.settings import Json
from tunesift.tuning.trainer import Given, Job, Row, adapters, save
from tunesift.tuning.vision_dpo import VisionDPO
from tunesift.tuning.vision_parts import freeze_encoder, language_layers

_TEXTS = ("prompt", "chosen", "rejected")


class VisionDPOLearner:
    """Learns which answer about an image is the better one."""

    columns = pa.schema([*((name, pa.string()) for name in _TEXTS), ("images", pa.list_(pa.string()))])
    said: tuple[str, ...] = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")

    def load(self, job: Job, device: str) -> tuple[Any, Any]:  # Any: transformers' own classes
        """A model that reads images, and what reads texts and images for it."""
        student = job.student
        return load("AutoModelForImageTextToText", student.location, device, student.revision, student.dtype)

    def encoder(self, job: Job, tokenizer: Any) -> Callable[[Preference], Row | Failure]:  # Any: transformers' class
        """The texts as the template has them, and the images' names, after one look at all that training will read."""
        write, collate = Writer(tokenizer), _collator(tokenizer, _home(job))

        def row(pair: Preference) -> Row | Failure:
            if not (pair.chosen.text.strip() and pair.rejected.text.strip()):
                return Failure("empty", "an answer is empty")
            if not (images := [name for message in pair.prompt for name in message.images]):
                return Failure("refused", "the pair has no image")
            try:
                prompt, answers = write.pair(pair.prompt, (pair.chosen, pair.rejected))
                columns = dict(zip(_TEXTS, (prompt, *answers), strict=True)) | {"images": images}
                read = collate([dict(columns)])
            except RowFault as fault:
                return Failure("unreadable", fault.message)
            except TemplateFault as error:
                return not_taken(error)
            except NOT_READ as error:
                return not_read(error)
            return Row(columns, int(read["attention_mask"].sum()), int(read["input_ids"].shape[1]))

        return row

    def trainer(self, job: Job, model: Any, tokenizer: Any, given: Given) -> Any:  # Any: libraries' classes
        """TRL's DPOTrainer.

        The reference is loaded here, since TRL would take it by the name in config.json: of another revision, and
        without the adapters that a student may hold. Beside new adapters it is the model without them.
        """
        from trl import DPOConfig, DPOTrainer
        from trl.trainer.utils import disable_dropout_in_model

        assert isinstance(job.tuner, VisionDPO)
        disable_dropout_in_model(model)  # the student's own; TRL would take that of adapters away, too
        if job.tuner.lora is None:
            freeze_encoder(model, job.student.name)
        return given.noted(DPOTrainer)(
            model=model,
            ref_model=self.load(job, str(model.device))[0] if job.tuner.lora is None else None,
            args=DPOConfig(
                **given.arguments, max_length=None, beta=job.tuner.beta, disable_dropout=job.tuner.lora is None
            ),
            data_collator=_collator(tokenizer, _home(job)),
            train_dataset=given.rows.train,
            eval_dataset=given.rows.held_out,
            processing_class=tokenizer,
            peft_config=_of_language(job, model),
        )

    def save(self, job: Job, trainer: Any, into: Path) -> Mapping[str, Json]:  # Any: TRL's own class
        """The model, and what reads texts and images for it."""
        return save(job, trainer, into)


def _home(job: Job) -> Path:
    assert isinstance(job.student, VisionModel)
    return job.student.home


def _collator(processor: Any, home: Path) -> Any:  # Any: transformers' and TRL's own classes
    """TRL's own, which opens images as the student sees them when it is asked."""
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    class Collator(DataCollatorForVisionPreference):  # type: ignore[misc]  # a class of a library without types
        def torch_call(self, examples: list[dict[str, Any]]) -> Any:  # Any: theirs
            opened = [{**row, "images": [picture(name, home) for name in row["images"]]} for row in examples]
            return super().torch_call(opened)

    return Collator(processor=processor)


def _of_language(job: Job, model: Any) -> Any:  # Any: PEFT's and transformers' own classes
    """Adapters for the part that reads and writes language."""
    if (config := adapters(job, model)) is not None:
        assert job.tuner.lora is not None
        config.target_modules = language_layers(model, job.tuner.lora, job.student.name)
    return config
