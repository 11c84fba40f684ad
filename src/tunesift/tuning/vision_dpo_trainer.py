"""Direct preference optimisation of what reads images, by TRL, in the process that trains."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesift.errors import TuningError, shown
from tunesift.images import picture
from tunesift.models.loading import load
from tunesift.models.templates import TemplateFault
from tunesift.models.vision import VisionModel, Writer
from tunesift.records import Failure, Preference, RowFault
from tunesift.settings import Json
from tunesift.tuning.trainer import Given, Job, Row, adapters, save
from tunesift.tuning.vision_dpo import VisionDPO

_TEXTS = ("prompt", "chosen", "rejected")
_PROJECTORS = (
    "multi_modal_projector", "mm_projector", "connector", "aligner", "embed_vision", "projector", "language_projection",
    "image_to_text_projection", "image_projector", "vision_projection", "vision_adapter", "resampler_model", "merger",
    "deepstack_merger_list", "patch_merger", "downsample",
)  # fmt: skip
"""What models of transformers 5.23 call what leads from images to language; GLM-V's last convolution is part of it."""


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
                return Failure("refused", f"the chat template renders no conversation ({error})")
            return Row(columns, int(read["attention_mask"].sum()), int(read["input_ids"].shape[1]))

        return row

    def trainer(self, job: Job, model: Any, tokenizer: Any, given: Given) -> Any:  # Any: libraries' classes
        """TRL's DPOTrainer."""
        from trl import DPOConfig, DPOTrainer

        assert isinstance(job.tuner, VisionDPO)
        if job.tuner.lora is None:
            freeze_encoder(model, job.student.name)
        return given.noted(DPOTrainer)(
            model=model,
            args=DPOConfig(
                **given.arguments, max_length=None, beta=job.tuner.beta, disable_dropout=job.tuner.lora is None
            ),
            data_collator=_collator(tokenizer, _home(job)),
            train_dataset=given.rows.train,
            eval_dataset=given.rows.held_out,
            processing_class=tokenizer,
            peft_config=_of_language(adapters(job, model), model),
        )

    def save(self, job: Job, trainer: Any, into: Path) -> Mapping[str, Json]:  # Any: TRL's own class
        """The model, and what reads texts and images for it."""
        return save(job, trainer, into)


def freeze_encoder(model: Any, name: str) -> None:  # Any: transformers' own class
    """Leave what reads images as it is, and train what leads from it to language, wherever that lies: beside the
    encoder, as in LLaVA, or within it, as in Qwen-VL.

    Raises `TuningError` for a model of which that is not known: all that sees would stay as it is, or nothing.
    """
    encoder, language = model.get_encoder(modality="image"), model.get_decoder()
    inside = [part for child, part in encoder.named_children() if child in _PROJECTORS]
    beside = [part for place, part in model.named_modules() if place.rpartition(".")[2] in _PROJECTORS]
    if any(part is language for part in encoder.modules()) or not (inside or beside):
        raise TuningError(f"student: of {shown(name)} it is not known which part reads images and which leads from it "
                          "to language; write tuner.lora.rank=128, or give a LLaVA or a Qwen-VL.")  # fmt: skip
    encoder.requires_grad_(False)
    for part in inside:
        part.requires_grad_(True)


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


def _of_language(config: Any, model: Any) -> Any:  # Any: PEFT's and transformers' own classes
    """Adapters for the part that reads and writes language: layers of the others may have the same names."""
    import torch

    if config is None:
        return None
    language = model.get_decoder()
    place = next(name for name, module in model.named_modules() if module is language)
    linear = {name for name, part in language.named_modules() if isinstance(part, torch.nn.Linear)}
    wanted = config.target_modules
    last = {name.rpartition(".")[2] for name in linear} if wanted == "all-linear" else set(wanted)
    names = "|".join(map(re.escape, sorted(last)))
    config.target_modules = rf"{re.escape(place)}\.(?:.*\.)?(?:{names})"
    return config
