"""What do other trainers call the settings of a training? Their files, and what has no counterpart there.

The names are those of LLaMA-Factory's `llamafactory/hparams` and `data/README.md`, of axolotl's
`axolotl/utils/schemas`, and of TRL's `SFTConfig`, `ModelConfig` and `ScriptArguments`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunesift.errors import RecipeError, shown
from tunesift.export_rows import TRAIN, Target
from tunesift.models.transformers import TransformersModel
from tunesift.settings import Json
from tunesift.tuning.sft import SFT
from tunesift.tuning.trainer import EVALUATIONS, KEPT

OUTPUT = "tuned"
"""The folder, beside the settings, that the trainer writes the model into."""
OPTIMIZER = "adamw_torch"
CALLED = {"llama-factory": "LLaMA-Factory", "axolotl": "axolotl", "trl": "TRL"}
SETTINGS_FILE = {"llama-factory": "train.yaml", "axolotl": "config.yaml", "trl": "sft.yaml"}
START = {
    "llama-factory": "llamafactory-cli train train.yaml",
    "axolotl": "axolotl train config.yaml",
    "trl": "trl sft --config sft.yaml",
}
"""The commands that begin the training, in the folder."""
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""What all three call them, as transformers does."""
_TAGS: dict[str, Json] = {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                          "assistant_tag": "assistant", "system_tag": "system"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Training:
    """A training that another trainer is to do."""

    student: TransformersModel
    tuner: SFT
    base: str
    """What the settings call the student: an absolute folder, or a hub id."""
    limit: int | None
    """Most tokens of a record; None where neither the settings nor the student's files say."""
    name: str
    """What the data are called."""
    records: int
    """Records that are trained on."""
    held_out: int
    """Records whose loss is measured."""

    @property
    def evaluated_every(self) -> int:
        """Updates between two looks at the held-out loss."""
        return max(1, self.tuner.updates(self.records) // EVALUATIONS)

    @property
    def warm_up(self) -> int:
        """Updates in which the learning rate rises, of rows that are not packed."""
        return math.ceil(self.tuner.warm_up * self.tuner.updates(self.records))

    @property
    def lasts(self) -> dict[str, Json]:
        """Epochs or updates, as all three call them but for axolotl's name of epochs."""
        return {"max_steps": self.tuner.steps} if self.tuner.steps else {"num_train_epochs": self.tuner.epochs}

    @property
    def tokens(self) -> int:
        """Most tokens of a record; raises `RecipeError` where nobody says."""
        if self.limit is None:
            said = f'tuner.max_length: is not given, and the files of "{shown(self.base)}" are not here to say it'
            raise RecipeError(f"{said}; write tuner.max_length=4096, the most tokens of a record.")
        return self.limit

    @property
    def data(self) -> tuple[str, ...]:
        """Names of what is trained on, and of what is held out where anything is."""
        return (self.name, f"{self.name}_held_out") if self.held_out else (self.name,)


def settings_for(to: Target, training: Training) -> dict[str, Json]:
    """The settings file of a trainer."""
    return {"llama-factory": _llama, "axolotl": _axolotl, "trl": _trl}[to](training)


def registry(training: Training) -> dict[str, Json]:
    """LLaMA-Factory's dataset_info.json: what the files are, and what their fields mean."""
    if training.tuner.template == "chat":
        entry: dict[str, Json] = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": _TAGS}
    else:
        entry = {"formatting": "alpaca", "columns": {"prompt": "instruction", "response": "output"}}
    return {name: {"file_name": f"{name}.json", **entry} for name in training.data}


def _llama(training: Training) -> dict[str, Json]:
    tuner, student, lora = training.tuner, training.student, training.tuner.lora
    size, parts = tuner.parts
    method: dict[str, Json] = {"finetuning_type": "full"}
    if lora is not None:
        method = {"finetuning_type": "lora", "lora_rank": lora.rank, "lora_alpha": lora.alpha,
                  "lora_dropout": lora.dropout, "lora_target": ",".join(lora.targets) or "all"}  # fmt: skip
    return {
        "model_name_or_path": training.base, **({"model_revision": student.revision} if student.revision else {}),
        "stage": "sft", "do_train": True, **method,
        "dataset": training.name, "dataset_dir": ".",
        **({} if tuner.template == "chat" else {"template": "empty"}),
        "cutoff_len": training.tokens, "train_on_prompt": False, "mask_history": True,
        **({"packing": True, "neat_packing": True, "flash_attn": "fa2"} if tuner.packing else {"packing": False}),
        "output_dir": OUTPUT, **training.lasts,
        "per_device_train_batch_size": size, "gradient_accumulation_steps": parts,
        "learning_rate": tuner.learning_rate, "lr_scheduler_type": _SCHEDULES[tuner.schedule],
        "warmup_steps": training.warm_up, "weight_decay": tuner.weight_decay, "optim": OPTIMIZER,
        "bf16": tuner.precision != "float32", "disable_gradient_checkpointing": not tuner.gradient_checkpointing,
        "save_strategy": "steps", "save_steps": tuner.save_every, "save_total_limit": KEPT, "logging_steps": 1,
        **({"eval_dataset": training.data[1], "per_device_eval_batch_size": size, "eval_strategy": "steps",
            "eval_steps": training.evaluated_every} if training.held_out else {}),
        "seed": tuner.seed, "data_seed": tuner.seed, "report_to": "none",
    }  # fmt: skip


def _axolotl(training: Training) -> dict[str, Json]:
    tuner, student, lora = training.tuner, training.student, training.tuner.lora
    size, parts = tuner.parts
    method: dict[str, Json] = {}
    if lora is not None:
        targets: dict[str, Json] = {"lora_target_modules": list(lora.targets)} if lora.targets else {}
        method = {"adapter": "lora", "lora_r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout,
                  **(targets or {"lora_target_linear": True})}  # fmt: skip
    lasts = training.lasts
    return {
        "base_model": training.base, **({"revision_of_model": student.revision} if student.revision else {}),
        "datasets": [_axolotl_data(training.data[0], tuner)],
        **({"test_datasets": [_axolotl_data(training.data[1], tuner)], "eval_strategy": "steps",
            "eval_steps": training.evaluated_every} if training.held_out else {}),
        "dataset_prepared_path": "prepared", "train_on_inputs": False, "sequence_len": training.tokens,
        **({"sample_packing": True, "eval_sample_packing": False, "attn_implementation": "flash_attention_2"}
           if tuner.packing else {"sample_packing": False}),
        **method, "output_dir": OUTPUT,
        **(lasts if tuner.steps else {"num_epochs": lasts["num_train_epochs"]}),
        "micro_batch_size": size, "gradient_accumulation_steps": parts,
        "learning_rate": tuner.learning_rate, "lr_scheduler": _SCHEDULES[tuner.schedule],
        "warmup_ratio": tuner.warm_up, "weight_decay": tuner.weight_decay, "optimizer": OPTIMIZER,
        "bf16": "auto" if tuner.precision == "auto" else tuner.precision == "bfloat16",
        "gradient_checkpointing": tuner.gradient_checkpointing,
        "save_strategy": "steps", "save_steps": tuner.save_every, "save_total_limit": KEPT, "logging_steps": 1,
        "seed": tuner.seed,
    }  # fmt: skip


def _axolotl_data(name: str, tuner: SFT) -> dict[str, Json]:
    found: dict[str, Json] = {"path": f"{name}.jsonl", "ds_type": "json", "split": "train"}
    if tuner.template != "chat":
        return {**found, "type": "input_output"}
    return {**found, "type": "chat_template", "chat_template": "tokenizer_default", "field_messages": "messages",
            "message_property_mappings": {"role": "role", "content": "content"}, "roles_to_train": [],
            "message_field_training": TRAIN, "train_on_eos": "turn"}  # fmt: skip


def _trl(training: Training) -> dict[str, Json]:
    tuner, student, lora = training.tuner, training.student, training.tuner.lora
    size, parts = tuner.parts
    method: dict[str, Json] = {"use_peft": False}
    if lora is not None:
        method = {"use_peft": True, "lora_r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout,
                  "lora_target_modules": list(lora.targets) or ["all-linear"]}  # fmt: skip
    return {
        "model_name_or_path": training.base, **({"model_revision": student.revision} if student.revision else {}),
        "dtype": student.dtype, **({"attn_implementation": "flash_attention_2"} if tuner.packing else {}), **method,
        "dataset_name": f"./{training.name}", "dataset_train_split": "train",
        **({"dataset_test_split": "test", "per_device_eval_batch_size": size, "eval_strategy": "steps",
            "eval_steps": training.evaluated_every} if training.held_out else {"eval_strategy": "no"}),
        "completion_only_loss": True, "max_length": training.limit, "packing": tuner.packing,
        **({"eval_packing": False} if tuner.packing else {}),
        "output_dir": OUTPUT, **training.lasts,
        "per_device_train_batch_size": size, "gradient_accumulation_steps": parts,
        "learning_rate": tuner.learning_rate, "lr_scheduler_type": _SCHEDULES[tuner.schedule],
        "warmup_steps": tuner.warm_up if tuner.warm_up < 1 else training.warm_up,
        "weight_decay": tuner.weight_decay, "optim": OPTIMIZER, "bf16": tuner.precision != "float32",
        "gradient_checkpointing": tuner.gradient_checkpointing,
        "save_strategy": "steps", "save_steps": tuner.save_every, "save_total_limit": KEPT, "logging_steps": 1,
        "seed": tuner.seed, "data_seed": tuner.seed, "report_to": "none",
    }  # fmt: skip


def differences_for(to: Target, training: Training) -> tuple[str, ...]:
    """What of a training has no counterpart in a trainer's settings, or means something else there; a sentence each."""
    tuner, student, who = training.tuner, training.student, CALLED[to]
    size, _ = tuner.parts
    said = [f"tuner.batch={tuner.batch}: is written for one device, in parts of {size}; on several, divide "
            "gradient_accumulation_steps by their number."]  # fmt: skip
    if training.limit is not None:
        fate = "left out there, too" if to == "axolotl" else "cut there, where tunesift leaves it out"
        said.append(f"tuner.max_length: a record of more than {training.limit:,} tokens is {fate}.")
    if to != "trl":
        said.append(f"student.dtype={student.dtype}: has no counterpart; {who} chooses the weights' type by bf16.")
    if to != "axolotl" and tuner.precision == "auto":
        said.append("tuner.precision=auto: is written as bf16: true; write false where the device has no bfloat16.")
    if to == "llama-factory" and tuner.packing:
        said.append(f"tuner.warm_up={tuner.warm_up:g}: is written as {training.warm_up} updates, of records that are "
                    "not packed; write fewer, as packing makes fewer updates.")  # fmt: skip
    if tuner.lora is not None and tuner.lora.merged:
        said.append(f"tuner.lora.merged=true: has no counterpart; {who} leaves adapters, which are merged afterwards.")
    if student.device != "auto":
        said.append(f"student.device={student.device}: has no counterpart; the machine's own settings choose a device.")
    return (*said, *_of_template(to, training))


def _of_template(to: Target, training: Training) -> tuple[str, ...]:
    name, who = training.tuner.template, CALLED[to]
    if to == "llama-factory" and name == "chat":
        return ("tuner.template=chat: no template is written, so that LLaMA-Factory reads the tokenizer's own; where "
                "its log does not say so, name the one of the model's family.",)  # fmt: skip
    if to == "axolotl" and name == "chat":
        return ("tuner.template=chat: what ends a response is learned where it is the tokenizer's EOS token; name "
                "another one as eot_tokens.",)  # fmt: skip
    if name != "chat" and to != "trl":
        return (f"tuner.template={name}: the prompts are written as texts, BOS and EOS included, since {who} has no "
                "template that reads the same.",)  # fmt: skip
    return ()
