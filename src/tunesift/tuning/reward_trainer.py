"""A reward model by TRL, in the process that trains: two heads, their losses, and the best weights left as one head.

The head is a module of its own, whose rows are centred and of length 1 whenever it is used: what is left behind is the
row that was trained with, not the one that lies under it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesift.errors import ModelRefused, TuningError, shown
from tunesift.models.loading import load
from tunesift.models.reward import TEMPLATE
from tunesift.records import Failure, Preference
from tunesift.settings import Json
from tunesift.tuning.encoding import JudgedEncoder
from tunesift.tuning.reward import RewardTuner
from tunesift.tuning.reward_best import ACCURACIES, Best
from tunesift.tuning.reward_losses import Parts, normalised, odin_loss, ranking_loss
from tunesift.tuning.trainer import Given, Job, Row, adapters

_OWN = ("id", "chosen_len", "rejected_len")
"""Columns that TRL does not know."""
MOST_NAMED = 3
"""Pairs that a sentence names."""
_TOLD = ("quality_corr", "length_corr", "orthogonality", "ranking", "skipped")


class RewardLearner:
    """Learns how good an answer is."""

    columns = pa.schema([("chosen_ids", pa.list_(pa.int32())), ("rejected_ids", pa.list_(pa.int32())),
                         ("id", pa.string()), ("chosen_len", pa.int64()), ("rejected_len", pa.int64())])  # fmt: skip
    said: tuple[str, ...] = (*(f"eval_{name}" for name in ACCURACIES), *_TOLD, *(f"eval_{name}" for name in _TOLD))

    def load(self, job: Job, device: str) -> tuple[Any, Any]:  # Any: transformers' own classes
        """The body of a language model, with heads of its own."""
        tuner, student = job.tuner, job.student
        assert isinstance(tuner, RewardTuner)
        causal, tokenizer = load("AutoModelForCausalLM", student.location, device, student.revision, student.dtype)
        model = classifier_of(causal, student.name)
        model.score = new_head(causal, model.score.in_features, tuner)
        _set_padding(model, tokenizer, tuner)
        return model.to(device).eval(), tokenizer

    def encoder(self, job: Job, tokenizer: Any) -> Callable[[Preference], Row | Failure]:  # Any: transformers' class
        """Tokens of the prompt with each answer, and how long each counts as."""
        tuner = job.tuner
        assert isinstance(tuner, RewardTuner)
        encode = JudgedEncoder(tokenizer, tuner.template)

        def row(pair: Preference) -> Row | Failure:
            found = encode(pair)
            if isinstance(found, Failure):
                return found
            chosen, rejected = (tuner.counted(found.prompt, answer) for answer in found.answers)
            columns = {"chosen_ids": [*found.chosen], "rejected_ids": [*found.rejected], "id": pair.id,
                       "chosen_len": chosen, "rejected_len": rejected}  # fmt: skip
            return Row(columns, found.tokens, found.longest)

        return row

    def trainer(self, job: Job, model: Any, tokenizer: Any, given: Given) -> Any:  # Any: libraries' classes
        """TRL's RewardTrainer with ODIN's losses."""
        from trl import RewardConfig
        from trl.trainer.utils import disable_dropout_in_model

        tuner = job.tuner
        assert isinstance(tuner, RewardTuner)
        disable_dropout_in_model(model)  # the student's own; TRL would take that of adapters away, too
        _check_count(job, tuner, given.rows.count)
        arguments = {**given.arguments, "eval_steps": tuner.evaluated_every(given.rows.count)}
        made = given.noted(_odin_trainer(tuner, job.into))(
            model=model,
            args=RewardConfig(**arguments, max_length=None, pad_to_multiple_of=None, disable_dropout=tuner.lora is None,
                              adam_beta1=tuner.betas[0], adam_beta2=tuner.betas[1]),
            data_collator=_collator(tokenizer),
            train_dataset=given.rows.train,
            eval_dataset=given.rows.held_out,
            processing_class=tokenizer,
            peft_config=adapters(job, model, "SEQ_CLS"),
        )  # fmt: skip
        made.add_callback(Best(job.into).callback(tuner.best_by))
        return made

    def save(self, job: Job, trainer: Any, into: Path) -> Mapping[str, Json]:  # Any: TRL's own class
        """The best weights as an ordinary classifier of one label, whose output is the quality."""
        tuner, best = job.tuner, Best(job.into)
        assert isinstance(tuner, RewardTuner)
        model = trainer.accelerator.unwrap_model(trainer.model)
        found = best.load_into(model)
        if tuner.lora is not None:
            model = model.merge_and_unload()
        export(model, tuner, into)
        trainer.processing_class.save_pretrained(str(into))
        return {"heads": tuner.heads, **({} if found is None else {"best_step": found[0], "best_accuracy": found[1]})}


def classifier_of(causal: Any, name: str) -> Any:  # Any: transformers' own classes
    """A classifier around the body of a language model, without a head yet."""
    import torch
    from transformers import AutoModelForSequenceClassification

    causal.config.num_labels = 1
    try:
        with torch.device("meta"):  # nothing is drawn: the body is there already
            model = AutoModelForSequenceClassification.from_config(causal.config)
    except ValueError as error:
        raise ModelRefused(f'model "{shown(name)}" has no counterpart that classifies; use another student.') from error
    body = causal.base_model
    if not hasattr(model, "score") or type(model.base_model) is not type(body):
        raise ModelRefused(f'model "{shown(name)}" has no counterpart with a head called score; use another student.')
    setattr(model, model.base_model_prefix, body)
    return model


def new_head(causal: Any, width: int, tuner: RewardTuner) -> Any:  # Any: torch's own class
    """A head drawn by the seed, with one row or with two that are normalised whenever they are used; it reads so many
    numbers, which need not be the body's own width."""
    import torch

    spread = getattr(causal.config, "initializer_range", 0.02)
    drawn = torch.empty(tuner.heads, width).normal_(0, spread, generator=torch.Generator().manual_seed(tuner.seed))
    head = (_heads() if tuner.heads == 2 else torch.nn.Linear)(width, tuner.heads, bias=False)
    head.weight = torch.nn.Parameter(drawn.to(causal.dtype))
    return head


def _heads() -> type[Any]:  # Any: torch's own class
    import torch

    class Heads(torch.nn.Linear):
        """Quality first, then length: others read the first output of a reward model."""

        def forward(self, input: Any) -> Any:  # Any: tensors
            with torch.autocast(input.device.type, enabled=False):
                return torch.nn.functional.linear(input.float(), self.rows())  # [B, T, 2]

        def rows(self) -> Any:  # Any: a tensor
            return normalised(self.weight.float())

    return Heads


def head_of(model: Any) -> Any:  # Any: transformers' and PEFT's own classes
    """The head that is trained; with adapters a copy of the first one."""
    found = model
    while not hasattr(found, "score"):
        found = getattr(found, "module", None) or found.base_model.model
    kept = getattr(found.score, "modules_to_save", None)
    return found.score if kept is None else kept["default"]


def export(model: Any, tuner: RewardTuner, into: Path) -> None:  # Any: transformers' own class
    """The model with the quality head alone, its row as it was trained with."""
    import torch

    head = head_of(model)
    weight = (head.rows()[:1] if tuner.heads == 2 else head.weight).detach().to(model.dtype)
    model.score = torch.nn.Linear(weight.shape[1], 1, bias=False, device=weight.device, dtype=weight.dtype)
    model.score.weight = torch.nn.Parameter(weight.clone())
    model.config.num_labels = model.num_labels = 1
    setattr(model.config, TEMPLATE, tuner.template)
    model.save_pretrained(str(into))


def _set_padding(model: Any, tokenizer: Any, tuner: RewardTuner) -> None:  # Any: transformers' own classes
    """Padding must be no token that ends a text, since the reward is read at the last one that is not padding, and one
    that the model has: a tokenizer may know of more."""
    end, size = JudgedEncoder(tokenizer, tuner.template).last, model.get_input_embeddings().num_embeddings
    known = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
    rarest = (n for n in range(min(len(tokenizer), size) - 1, -1, -1) if n not in tokenizer.all_special_ids)
    ends = (end, tokenizer.eos_token_id)
    found = next(n for n in (*known, *rarest) if n is not None and n < size and n not in ends)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(found)
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = found


def _check_count(job: Job, tuner: RewardTuner, count: int) -> None:
    if tuner.heads == 2 and 2 * count < tuner.least_sequences:
        raise TuningError(f"{job.into}: {count} pairs are fewer sequences than the {tuner.least_sequences} of which a "
                          "correlation is taken; give more pairs, or write tuner.heads=1.")  # fmt: skip


def _collator(tokenizer: Any) -> Any:  # Any: TRL's own class
    """Chosen ones first, then the rejected ones; beside the tokens their lengths, and whose they are."""
    from trl.trainer.reward_trainer import DataCollatorForPreference

    class Collator(DataCollatorForPreference):  # type: ignore[misc]  # a class of a library without types
        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:  # Any: theirs
            import torch

            lengths = [example[f"{side}_len"] for side in ("chosen", "rejected") for example in examples]
            batch = super().torch_call(examples)
            return {**batch, "lengths": torch.tensor(lengths), "ids": [example["id"] for example in examples]}

    return Collator(pad_token_id=tokenizer.pad_token_id)


def _odin_trainer(tuner: RewardTuner, into: Path) -> type[Any]:  # Any: TRL's own class
    from trl import RewardTrainer

    class ODINTrainer(RewardTrainer):  # type: ignore[misc]  # a class of a library without types
        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            self._signature_columns += [name for name in _OWN if name not in self._signature_columns]

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:  # Any: theirs
            lengths, ids = inputs.pop("lengths"), inputs.pop("ids")  # or the model swallows them without a word
            outputs = model(**inputs, use_cache=False)
            rewards = outputs.logits.float()  # [2B, heads]
            _check_finite(rewards, ids, into)
            noted = self._metrics["train" if self.model.training else "eval"]
            chosen, rejected = rewards[:, 0].detach().chunk(2)
            right, lengths_of = (chosen > rejected).float(), lengths.chunk(2)
            kinds = (lengths_of[0] > -1, lengths_of[0] > lengths_of[1], lengths_of[0] < lengths_of[1])
            for name, kind in zip(ACCURACIES, kinds, strict=True):  # by quality alone, pair by pair
                if kind.any():  # TRL takes a mean of whatever is noted
                    noted[name].extend(right[kind].tolist())
            loss = ranking_loss(rewards[:, 0])
            if tuner.heads == 2:
                parts = odin_loss(rewards, lengths, head_of(model).rows(), tuner.weights)
                loss = parts.loss
                _note(noted, parts)
            return (loss, outputs) if return_outputs else loss

    return ODINTrainer


def _note(noted: dict[str, list[float]], parts: Parts) -> None:
    told = (parts.quality_and_length, parts.length_and_length, parts.orthogonal, parts.ranking, float(parts.skipped))
    for name, value in zip(_TOLD, told, strict=True):
        if value is not None:
            noted[name].append(value)


def _check_finite(rewards: Any, ids: list[str], into: Path) -> None:  # Any: a tensor
    """Raise for a reward that is no number, before it makes all weights such."""
    import torch

    odd = (~torch.isfinite(rewards)).any(1).view(2, -1).any(0).tolist()
    named = [f'"{shown(id)}"' for id, is_odd in zip(ids, odd, strict=True) if is_odd]
    if named:
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        raise TuningError(f"{into}: the reward is no number for the pairs {', '.join(named[:MOST_NAMED])}{more}; lower "
                          "tuner.learning_rate, or leave them out.")  # fmt: skip
