"""Direct preference optimisation by TRL, in the process that trains; the loss of a pair may have a weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesift.errors import TuningError, shown
from tunesift.models.loading import load
from tunesift.models.transformers import TransformersModel
from tunesift.records import Failure, Preference
from tunesift.settings import Json
from tunesift.tuning.dpo import DPO, WEIGHT
from tunesift.tuning.encoding import PairEncoder
from tunesift.tuning.trainer import Given, Job, Row, adapters, save

_OPTIMISERS = {"adamw": "adamw_torch_fused", "rmsprop": "rmsprop"}
"""What transformers calls them."""
_PAIR_WEIGHT = "pair_weight"
_IDS = [(name, pa.list_(pa.int32())) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]


class DPOLearner:
    """Learns which answer is the better one."""

    columns = pa.schema([*_IDS, (_PAIR_WEIGHT, pa.float64())])
    said: tuple[str, ...] = ("rewards/accuracies", "eval_rewards/accuracies", "rewards/margins")

    def load(self, job: Job, device: str) -> tuple[Any, Any]:  # Any: transformers' own classes
        """A model with a language model's head."""
        return _loaded(job.student, device)

    def encoder(self, job: Job, tokenizer: Any) -> Callable[[Preference], Row | Failure]:  # Any: transformers' class
        """Tokens of the prompt and of both answers."""
        assert isinstance(job.tuner, DPO)
        encode, weighted = PairEncoder(tokenizer, job.tuner.template), job.tuner.weighted

        def row(pair: Preference) -> Row | Failure:
            found = encode(pair)
            if isinstance(found, Failure):
                return found
            columns = {"prompt_ids": found.prompt, "chosen_ids": found.chosen, "rejected_ids": found.rejected,
                       _PAIR_WEIGHT: _weight(pair, job.into) if weighted else 1.0}  # fmt: skip
            return Row(columns, found.tokens, found.longest)

        return row

    def trainer(self, job: Job, model: Any, tokenizer: Any, given: Given) -> Any:  # Any: libraries' classes
        """TRL's DPOTrainer on tokens that are made already.

        The reference is loaded here, since TRL would take it by the name in config.json: of another revision, and
        without the adapters that a student may hold. Beside new adapters it is the model without them.
        """
        from trl import DPOConfig
        from trl.trainer.utils import disable_dropout_in_model

        tuner = job.tuner
        assert isinstance(tuner, DPO)
        disable_dropout_in_model(model)  # the student's own; TRL would take that of adapters away, too
        reference = tuner.reference if tuner.lora is not None else tuner.reference or job.student
        kind, collator = _weighted(tokenizer) if tuner.weighted else (_plain(), None)
        return given.noted(kind)(
            model=model,
            ref_model=None if reference is None else _loaded(reference, str(model.device))[0],
            args=DPOConfig(
                **given.arguments,
                max_length=None,
                beta=tuner.beta,
                optim=_OPTIMISERS[tuner.optimiser],
                disable_dropout=tuner.lora is None,
            ),
            data_collator=collator,
            train_dataset=given.rows.train,
            eval_dataset=given.rows.held_out,
            processing_class=tokenizer,
            peft_config=adapters(job, model),
        )

    def save(self, job: Job, trainer: Any, into: Path) -> Mapping[str, Json]:  # Any: TRL's own class
        """The model and its tokenizer."""
        return save(job, trainer, into)


def _loaded(model: TransformersModel, device: str) -> tuple[Any, Any]:  # Any: transformers' own classes
    return load("AutoModelForCausalLM", model.location, device, model.revision, model.dtype)


def _weight(pair: Preference, into: Path) -> float:
    weight = pair.extra.get(WEIGHT)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        said = "has no weight" if weight is None else f"has the weight {shown(str(weight))}"
        raise TuningError(f'{into}: the pair "{shown(pair.id)}" {said}; give every pair a number from 0 on.')
    return float(weight)


def _plain() -> type[Any]:  # Any: TRL's own class
    """TRL's trainer, which takes our tokens for what they are."""
    from trl import DPOTrainer

    class OfTokens(DPOTrainer):  # type: ignore[misc]  # a class of a library without types
        def _prepare_dataset(self, dataset: Any, *more: Any, **named: Any) -> Any:  # Any: theirs
            return dataset

    return OfTokens


def _weighted(tokenizer: Any) -> tuple[type[Any], Any]:  # Any: transformers' and TRL's own classes
    """The same, which multiplies the loss of each pair by its weight: n pairs are 2n sequences, chosen ones first.

    A batch of several goes through one pair at a time, because TRL's loss is a mean over them.
    """
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    plain = _plain()

    class Collator(DataCollatorForPreference):  # type: ignore[misc]  # a class of a library without types
        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:  # Any: theirs
            import torch

            weights = torch.tensor([example[_PAIR_WEIGHT] for example in examples])  # [n]
            return {**super().torch_call(examples), _PAIR_WEIGHT: weights}

    class GapWeighted(plain):  # type: ignore[misc, valid-type]  # the same
        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            if _PAIR_WEIGHT not in self._signature_columns:
                self._signature_columns.append(_PAIR_WEIGHT)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any
        ) -> Any:  # Any: theirs
            assert not return_outputs  # asked for where metrics are computed, which nobody does here
            return weighted_mean(lambda pair: super(GapWeighted, self).compute_loss(model, pair, **more), inputs)

    return GapWeighted, Collator(pad_token_id=_pad(tokenizer))


def weighted_mean(loss_of: Callable[[Any], Any], batch: dict[str, Any]) -> Any:  # Any: torch's own class
    """Mean of weight times loss over the pairs of a batch; takes the weights out of it, because a key that nobody takes
    out is swallowed by the model."""
    weights = batch.pop(_PAIR_WEIGHT)  # [n]
    count = len(weights)
    pairs = ({name: _of_pair(value, n, count) for name, value in batch.items()} for n in range(count))
    return sum(weight * loss_of(pair) for weight, pair in zip(weights, pairs, strict=True)) / count


def _of_pair(value: Any, n: int, count: int) -> Any:  # Any: torch's own class
    """What of a batch of so many pairs is the n-th one's."""
    return value[[n, n + count]] if len(value) == 2 * count else value[[n]]


def _pad(tokenizer: Any) -> int:  # Any: transformers' own class
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
