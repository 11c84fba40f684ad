"""What do other trainers call the settings of a training? Their files, and what has no counterpart there.

The names are those of LLaMA-Factory's `llamafactory/hparams` and `data/README.md`, of axolotl's
`axolotl/utils/schemas`, and of TRL's `SFTConfig`, `DPOConfig`, `ModelConfig` and `ScriptArguments`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunesift.errors import RecipeError, shown
from tunesift.export_rows import TRAIN, Target
from tunesift.models.transformers import TransformersModel
from tunesift.settings import Json
from tunesift.tuning.dpo import DPO
from tunesift.tuning.sft import SFT
from tunesift.tuning.trainer import EVALUATIONS, KEPT
from tunesift.tuning.vision_dpo import VisionDPO

OUTPUT = "tuned"
"""The folder, beside the settings, that the trainer writes the model into."""
_OPTIMISERS = {"adamw": "adamw_torch", "rmsprop": "rmsprop"}
"""What all three call them, as transformers does."""
CALLED = {"llama-factory": "LLaMA-Factory", "axolotl": "axolotl", "trl": "TRL"}
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""What all three call them, as transformers does."""
_TAGS: dict[str, Json] = {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                          "assistant_tag": "assistant", "system_tag": "system"}  # fmt: skip


_OF_IMAGES = {
    True: "what reads the images is trained there, too, where tunesift leaves it as it is.",
    False: "adapters stand in what reads the images, too, where tunesift gives them to the language model alone.",
}
"""What differs with all weights, and with adapters."""


@dataclass(frozen=True, slots=True)
class Training:
    """A training that another trainer is to do."""

    student: TransformersModel
    tuner: SFT | DPO | VisionDPO
    base: str
    """What the settings call the student: an absolute folder, or a hub id."""
    reference: str | None
    """The same of the model that it is kept near to; None for the student as it is before."""
    limit: int | None
    """Most tokens of a record; None where neither the settings nor the student's files say."""
    name: str
    """What the data are called."""
    records: int
    """Records that are trained on."""
    held_out: int
    """Records whose loss is measured."""

    @property
    def pairs(self) -> bool:
        """Whether it is trained on preference pairs."""
        return isinstance(self.tuner, DPO | VisionDPO)

    @property
    def packing(self) -> bool:
        """Whether several records are put into one row."""
        return isinstance(self.tuner, SFT) and self.tuner.packing

    @property
    def optimiser(self) -> str:
        """What the weights are updated by."""
        return _OPTIMISERS[self.tuner.optimiser if isinstance(self.tuner, DPO) else "adamw"]

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


def settings_file(to: Target, pairs: bool) -> str:
    """What a trainer's settings file is called."""
    return {"llama-factory": "train.yaml", "axolotl": "config.yaml", "trl": f"{'dpo' if pairs else 'sft'}.yaml"}[to]


def start(to: Target, pairs: bool) -> str:
    """The command that begins the training, in the folder."""
    file = settings_file(to, pairs)
    stage = "dpo" if pairs else "sft"
    return {"llama-factory": f"llamafactory-cli train {file}", "axolotl": f"axolotl train {file}",
            "trl": f"trl {stage} --config {file}"}[to]  # fmt: skip


def settings_for(to: Target, training: Training) -> dict[str, Json]:
    """The settings file of a trainer."""
    return {"llama-factory": _llama, "axolotl": _axolotl, "trl": _trl}[to](training)


def registry(training: Training) -> dict[str, Json]:
    """LLaMA-Factory's dataset_info.json: what the files are, and what their fields mean."""
    answers: dict[str, Json] = {"chosen": "chosen", "rejected": "rejected"}
    entry: dict[str, Json] = {"ranking": True} if training.pairs else {}
    if training.tuner.template == "chat":
        columns: dict[str, Json] = {"messages": "messages", **(answers if training.pairs else {})}
        entry |= {"formatting": "sharegpt", "columns": columns, "tags": _TAGS}
    else:
        columns = {"prompt": "instruction", **(answers if training.pairs else {"response": "output"})}
        entry |= {"formatting": "alpaca", "columns": columns}
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
        **_llama_stage(training), "do_train": True, **method,
        "dataset": training.name, "dataset_dir": ".",
        **({} if tuner.template == "chat" else {"template": "empty"}),
        "cutoff_len": training.tokens,
        "output_dir": OUTPUT, **training.lasts,
        "per_device_train_batch_size": size, "gradient_accumulation_steps": parts,
        "learning_rate": tuner.learning_rate, "lr_scheduler_type": _SCHEDULES[tuner.schedule],
        "warmup_steps": training.warm_up, "weight_decay": tuner.weight_decay, "optim": training.optimiser,
        "bf16": tuner.precision != "float32", "disable_gradient_checkpointing": not tuner.gradient_checkpointing,
        "save_strategy": "steps", "save_steps": tuner.save_every, "save_total_limit": KEPT, "logging_steps": 1,
        **({"eval_dataset": training.data[1], "per_device_eval_batch_size": size, "eval_strategy": "steps",
            "eval_steps": training.evaluated_every} if training.held_out else {}),
        "seed": tuner.seed, "data_seed": tuner.seed, "report_to": "none",
    }  # fmt: skip


def _llama_stage(training: Training) -> dict[str, Json]:
    if isinstance(training.tuner, DPO):
        reference: dict[str, Json] = {"ref_model": training.reference} if training.reference else {}
        return {"stage": "dpo", "pref_loss": "sigmoid", "pref_beta": training.tuner.beta, **reference}
    packed: dict[str, Json] = {"packing": True, "neat_packing": True, "flash_attn": "fa2"}
    return {"stage": "sft", "train_on_prompt": False, "mask_history": True,
            **(packed if training.packing else {"packing": False})}  # fmt: skip


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
        **_axolotl_stage(training), "datasets": [_axolotl_data(training.data[0], training)],
        **({"test_datasets": [_axolotl_data(training.data[1], training)], "eval_strategy": "steps",
            "eval_steps": training.evaluated_every} if training.held_out else {}),
        "dataset_prepared_path": "prepared", "sequence_len": training.tokens,
        **method, "output_dir": OUTPUT,
        **(lasts if tuner.steps else {"num_epochs": lasts["num_train_epochs"]}),
        "micro_batch_size": size, "gradient_accumulation_steps": parts,
        "learning_rate": tuner.learning_rate, "lr_scheduler": _SCHEDULES[tuner.schedule],
        "warmup_ratio": tuner.warm_up, "weight_decay": tuner.weight_decay, "optimizer": training.optimiser,
        "bf16": "auto" if tuner.precision == "auto" else tuner.precision == "bfloat16",
        "gradient_checkpointing": tuner.gradient_checkpointing,
        "save_strategy": "steps", "save_steps": tuner.save_every, "save_total_limit": KEPT, "logging_steps": 1,
        "seed": tuner.seed,
    }  # fmt: skip


def _axolotl_stage(training: Training) -> dict[str, Json]:
    """Pairs of messages go to TRL as they are: axolotl counts tokens of texts alone, and its own template for pairs
    looks for an answer in what it rendered, where a short one may stand earlier."""
    if isinstance(training.tuner, DPO):
        own: dict[str, Json] = {"skip_prepare_dataset": True} if training.tuner.template == "chat" else {}
        return {"rl": "dpo", "rl_beta": training.tuner.beta, **own}
    packed: dict[str, Json] = {"sample_packing": True, "eval_sample_packing": False,
                               "attn_implementation": "flash_attention_2"}  # fmt: skip
    return {"train_on_inputs": False, **(packed if training.packing else {"sample_packing": False})}


def _axolotl_data(name: str, training: Training) -> dict[str, Json]:
    found: dict[str, Json] = {"path": f"{name}.jsonl", "ds_type": "json", "split": "train"}
    if training.pairs:
        return found
    if training.tuner.template != "chat":
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
        "dtype": student.dtype, **method, **_trl_stage(training),
        "dataset_name": f"./{training.name}", "dataset_train_split": "train",
        **({"dataset_test_split": "test", "per_device_eval_batch_size": size, "eval_strategy": "steps",
            "eval_steps": training.evaluated_every} if training.held_out else {"eval_strategy": "no"}),
        "max_length": training.limit, "output_dir": OUTPUT, **training.lasts,
        "per_device_train_batch_size": size, "gradient_accumulation_steps": parts,
        "learning_rate": tuner.learning_rate, "lr_scheduler_type": _SCHEDULES[tuner.schedule],
        "warmup_steps": tuner.warm_up if tuner.warm_up < 1 else training.warm_up,
        "weight_decay": tuner.weight_decay, "optim": training.optimiser, "bf16": tuner.precision != "float32",
        "gradient_checkpointing": tuner.gradient_checkpointing,
        "save_strategy": "steps", "save_steps": tuner.save_every, "save_total_limit": KEPT, "logging_steps": 1,
        "seed": tuner.seed, "data_seed": tuner.seed, "report_to": "none",
    }  # fmt: skip


def _trl_stage(training: Training) -> dict[str, Json]:
    if isinstance(training.tuner, DPO | VisionDPO):
        stage: dict[str, Json] = {"loss_type": ["sigmoid"], "beta": training.tuner.beta}
        return stage if training.tuner.lora is None else {**stage, "disable_dropout": False}  # else adapters have none
    packed: dict[str, Json] = {"packing": True, "eval_packing": False, "attn_implementation": "flash_attention_2"}
    return {"completion_only_loss": True, **(packed if training.packing else {"packing": False})}


def differences_for(to: Target, training: Training) -> tuple[str, ...]:
    """What of a training has no counterpart in a trainer's settings, or means something else there; a sentence each."""
    tuner, student, who = training.tuner, training.student, CALLED[to]
    size, _ = tuner.parts
    said = [f"tuner.batch={tuner.batch}: is written for one device, in parts of {size}; on several, divide "
            "gradient_accumulation_steps by their number."]  # fmt: skip
    if training.limit is not None:
        out = to == "axolotl" and not (training.pairs and tuner.template == "chat")
        fate = "left out there, too" if out else "cut there, where tunesift leaves it out"
        what = "a pair of more than" if training.pairs else "a record of more than"
        said.append(f"tuner.max_length: {what} {training.limit:,} tokens is {fate}.")
    if to != "trl":
        said.append(f"student.dtype={student.dtype}: has no counterpart; {who} chooses the weights' type by bf16.")
    if to != "axolotl" and tuner.precision == "auto":
        said.append("tuner.precision=auto: is written as bf16: true; write false where the device has no bfloat16.")
    if to == "llama-factory" and training.packing:
        said.append(f"tuner.warm_up={tuner.warm_up:g}: is written as {training.warm_up} updates, of records that are "
                    "not packed; write fewer, as packing makes fewer updates.")  # fmt: skip
    if tuner.lora is not None and tuner.lora.merged:
        said.append(f"tuner.lora.merged=true: has no counterpart; {who} leaves adapters, which are merged afterwards.")
    if student.device != "auto":
        said.append(f"student.device={student.device}: has no counterpart; the machine's own settings choose a device.")
    return (*said, *_of_preferences(to, training), *_of_template(to, training))


def _of_preferences(to: Target, training: Training) -> tuple[str, ...]:
    tuner, who, said = training.tuner, CALLED[to], []
    if isinstance(tuner, VisionDPO):
        return (_OF_IMAGES[tuner.lora is None],)
    if not isinstance(tuner, DPO):
        return ()
    if tuner.weighted:
        said.append("tuner.weighted=true: has no counterpart; every pair counts the same there.")
    if training.reference is not None and to != "llama-factory":
        said.append(f"tuner.reference={training.reference}: has no counterpart; {who} keeps the student near to itself "
                    "as it is before.")  # fmt: skip
    elif tuner.reference is not None:
        for name in ("revision", "dtype", "device"):
            value = getattr(tuner.reference, name)
            if value != getattr(training.student, name):
                said.append(f"tuner.reference.{name}={value}: has no counterpart; LLaMA-Factory takes the student's.")
    return tuple(said)


def _of_template(to: Target, training: Training) -> tuple[str, ...]:
    name, who = training.tuner.template, CALLED[to]
    if to == "llama-factory" and name == "chat":
        return ("tuner.template=chat: no template is written, so that LLaMA-Factory reads the tokenizer's own; where "
                "its log does not say so, name the one of the model's family.",)  # fmt: skip
    if to == "axolotl" and training.pairs:
        return ()
    if to == "axolotl" and name == "chat":
        return ("tuner.template=chat: what ends a response is learned where it is the tokenizer's EOS token; name "
                "another one as eot_tokens.",)  # fmt: skip
    if name != "chat" and to != "trl":
        return (f"tuner.template={name}: the prompts are written as texts, BOS and EOS included, since {who} has no "
                "template that reads the same.",)  # fmt: skip
    return ()
