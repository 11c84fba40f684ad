"""How good is the last answer of a conversation? Local classifiers with one label, from a folder or by their id."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tunesift.errors import ModelRefused, RecipeError, shown
from tunesift.heartbeat import beat, loading
from tunesift.models.folders import LOADING, local_folder
from tunesift.models.likelihood import Segment, batches
from tunesift.models.loading import held, load
from tunesift.models.local import LocalModel
from tunesift.models.transformers import out_of_memory
from tunesift.models.turns import WholeEncoder
from tunesift.prompts import Template
from tunesift.records import Failure, Message, Record
from tunesift.settings import INCIDENTAL

TEMPLATE = "tunesift_template"
"""What config.json calls the template that a reward model was trained in."""


@dataclass(frozen=True, kw_only=True)
class RewardClassifier(LocalModel):
    """A reward model: local weights with one label, such as `odin` leaves. Safetensors only, no code from the model."""

    kind: Literal["reward"] = "reward"
    template: Template = "chat"
    """What stands around a conversation: the reward model's own chat template, or the fixed one that it was trained
    in."""
    max_length: int | None = None
    """Most tokens of a conversation, 1 or more; None for 2,048 or the model's own limit, whichever is smaller. A longer
    one has no reward: nothing is cut."""

    def reward(self, conversations: Sequence[Sequence[Message]]) -> list[float | Failure]:
        """What the model gives for the last answer of each, in order; a Failure where that is no number, and for what
        is too long or no conversation of its template."""
        weights = _weights(self)
        encode = WholeEncoder(weights.tokenizer, self.template)
        limit = self.limit_within(weights.limit)
        found = [_read(encode, conversation, limit) for conversation in conversations]
        numbers = [n for n, one in enumerate(found) if isinstance(one, Segment)]
        segments = [one for one in found if isinstance(one, Segment)]
        done: dict[int, float | Failure] = {n: one for n, one in enumerate(found) if isinstance(one, Failure)}
        for batch in batches(segments, self.batch_tokens):
            done |= zip((numbers[n] for n in batch), weights.rewards([segments[n] for n in batch]), strict=True)
            beat(len(batch) / len(segments))
        return [done[n] for n in range(len(found))]


@dataclass(frozen=True, kw_only=True)
class TunedReward(RewardClassifier):
    """A reward model that a run has trained: known by what it was made of, wherever its folder is moved to."""

    place: Annotated[str, INCIDENTAL]
    """Its folder."""

    def identity(self) -> str:
        """The checkpoint's digest, of its settings and its data."""
        return self.name

    @property
    def location(self) -> str:
        """Where the weights are: in the checkpoint's folder."""
        return self.place


def _read(encode: WholeEncoder, conversation: Sequence[Message], limit: int) -> Segment | Failure:
    if not conversation or conversation[-1].role != "assistant":
        return Failure("refused", "the conversation does not end with an answer")
    found = encode(Record("", tuple(conversation)))
    if isinstance(found, Failure):
        return found
    if len(found) > limit:
        return Failure("too-long", f"{len(found):,} tokens, the limit is {limit:,}")
    return Segment(found, 0, truncated=False)


class _Weights:
    """A loaded classifier and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:  # Any: transformers' own classes
        self.model, self.tokenizer = model, tokenizer
        config = model.config.get_text_config()
        self.limit = int(getattr(config, "max_position_embeddings", 2**31))

    def rewards(self, segments: list[Segment]) -> list[float | Failure]:
        """The output of one batch; on out-of-memory its halves, down to what is alone too much."""
        import torch

        try:
            with torch.inference_mode():
                return [_number(value) for value in self._outputs(segments)]
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if len(segments) == 1:
            return [Failure("too-long", f"{len(segments[0].ids)} tokens need more memory than the device has")]
        half = len(segments) // 2
        return [*self.rewards(segments[:half]), *self.rewards(segments[half:])]

    def _outputs(self, segments: list[Segment]) -> Iterable[float]:
        import torch

        longest, device = max(len(s.ids) for s in segments), self.model.device
        pad = self._padding({s.ids[-1] for s in segments})
        rows = [[*s.ids, *[pad] * (longest - len(s.ids))] for s in segments]
        mask = [[1] * len(s.ids) + [0] * (longest - len(s.ids)) for s in segments]
        config = self.model.config.get_text_config()
        before, config.pad_token_id = config.pad_token_id, pad  # the model looks for the last token that is another
        try:
            logits = self.model(input_ids=torch.tensor(rows, device=device),
                                attention_mask=torch.tensor(mask, device=device), use_cache=False).logits  # fmt: skip
        finally:
            config.pad_token_id = before
        return logits[:, 0].float().tolist()  # type: ignore[no-any-return]  # [B]

    def _padding(self, ends: set[int]) -> int:
        """A token that none of the texts ends with; the model's own where that is one."""
        own = self.model.config.get_text_config().pad_token_id
        known = (own, self.tokenizer.pad_token_id, *range(len(ends) + 1))
        return next(int(n) for n in known if n is not None and n not in ends)


def check_template(path: str, model: RewardClassifier) -> None:
    """Raise `RecipeError` for a model whose config.json is here and says that it was trained in another template."""
    folder = local_folder(model.name)
    try:
        said = json.loads((folder / "config.json").read_text("utf-8")) if folder else {}
    except (OSError, ValueError):
        return  # who loads it says what is wrong
    trained = said.get(TEMPLATE, model.template) if isinstance(said, dict) else model.template
    if trained != model.template:
        raise RecipeError(f'{path}.template: "{shown(model.name)}" was trained in {shown(str(trained))}, not in '
                          f"{model.template}; write {path}.template={shown(str(trained))}.")  # fmt: skip


def _number(value: float) -> float | Failure:
    return value if math.isfinite(value) else Failure("not-finite", f"the reward is {value}")


_LOADED: dict[tuple[str, str | None, str, str], tuple[str, _Weights]] = held({})
"""Identity and weights, by name, revision, type and device."""


def _weights(model: RewardClassifier) -> _Weights:
    place, identity = (model.location, model.revision, model.dtype, model.device), model.identity()
    with LOADING:
        if place not in _LOADED or _LOADED[place][0] != identity:
            _LOADED.pop(place, None)
            with loading(model.name):
                _LOADED[place] = identity, _loaded(model)
        weights = _LOADED[place][1]
    trained = getattr(weights.model.config, TEMPLATE, model.template)
    if trained != model.template:
        said = f'model "{shown(model.name)}" was trained in the template {shown(str(trained))}'
        raise ModelRefused(f"{said} and is asked in {model.template}; write template={shown(str(trained))}.")
    return weights


def _loaded(model: RewardClassifier) -> _Weights:
    found, tokenizer = load("AutoModelForSequenceClassification", model.location, model.device, model.revision,
                            model.dtype)  # fmt: skip
    if (count := found.config.num_labels) != 1:
        said = f'model "{shown(model.name)}" has {count} outputs, and a reward is one'
        raise ModelRefused(f"{said}; give a classifier of one label, such as odin leaves.")
    return _Weights(found, tokenizer)
