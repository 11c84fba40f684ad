"""Supervised fine-tuning by TRL, in the process that trains: settings and columns are translated, TRL does the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesift.errors import TuningError
from tunesift.models.loading import load
from tunesift.models.turns import Encoder
from tunesift.records import Failure, Record
from tunesift.settings import Json
from tunesift.tuning.sft import SFT
from tunesift.tuning.trainer import Given, Job, Row, adapters, save

IGNORED = -100
"""The label of a token whose loss does not count."""


class SFTLearner:
    """Learns responses."""

    columns = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int64()))])
    said: tuple[str, ...] = ()

    def load(self, job: Job, device: str) -> tuple[Any, Any]:  # Any: transformers' own classes
        """A model with a language model's head."""
        student = job.student
        return load("AutoModelForCausalLM", student.location, device, student.revision, student.dtype)

    def encoder(self, job: Job, tokenizer: Any) -> Callable[[Record], Row | Failure]:  # Any: transformers' own class
        """Tokens of prompt and response, of which the labels are those of the response."""
        encode = Encoder(tokenizer, job.tuner.template)

        def row(record: Record) -> Row | Failure:
            found = encode(record)
            if isinstance(found, Failure):
                return found
            labels = [*[IGNORED] * found.start, *found.ids[found.start :]]
            return Row({"input_ids": list(found.ids), "labels": labels}, len(found.ids), len(found.ids))

        return row

    def trainer(self, job: Job, model: Any, tokenizer: Any, given: Given) -> Any:  # Any: libraries' classes
        """TRL's SFTTrainer."""
        from trl import SFTConfig, SFTTrainer

        assert isinstance(job.tuner, SFT)
        packing = job.tuner.packing
        if packing:
            _check_packing(str(model.device.type))
            model.set_attn_implementation("flash_attention_2")
        most = job.limit if packing else None
        return given.noted(SFTTrainer)(
            model=model,
            args=SFTConfig(**given.arguments, max_length=most, packing=packing, eval_packing=False),
            train_dataset=given.rows.train,
            eval_dataset=given.rows.held_out,
            processing_class=tokenizer,
            peft_config=adapters(job, model),
        )

    def save(self, job: Job, trainer: Any, into: Path) -> Mapping[str, Json]:  # Any: TRL's own class
        """The model and its tokenizer."""
        return save(job, trainer, into)


def _check_packing(device: str) -> None:
    from transformers.utils import is_flash_attn_2_available

    if device != "cuda" or not is_flash_attn_2_available():
        raise TuningError(f"tuner.packing: records in one row see one another without FlashAttention, which {device} "
                          "does not have here; leave packing out.")  # fmt: skip
