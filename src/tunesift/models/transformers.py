"""How do local weights chat, predict and embed? Any Hugging Face causal language model, from a folder or by its id."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from tunesift.errors import ModelRefused, ParameterRefused
from tunesift.heartbeat import beat, loading, stretch
from tunesift.models.base import Completion, Sampling, Span, TargetLoss
from tunesift.models.bytepairs import QuickEncoder
from tunesift.models.folders import EMBEDDED, LOADING, segment_of
from tunesift.models.fused import fuse
from tunesift.models.lanes import one_ahead
from tunesift.models.likelihood import Segment, SpanEncoder, losses
from tunesift.models.loading import held, load
from tunesift.models.local import LocalModel
from tunesift.models.packed import PackedModel, Work, packed
from tunesift.models.packing import Forest
from tunesift.models.sharing import all_losses, all_means
from tunesift.records import Failure, Message, content_digest
from tunesift.settings import INCIDENTAL

if TYPE_CHECKING:
    import torch

AHEAD = 2
"""Packs that are made ready while a GPU computes as many."""
CHARACTERS_PER_TOKEN = 4
"""About as many as an English text has."""
REMEMBERED = 1024
"""Tokens of beginnings that are remembered from one batch to the next; in a model of 7B half a megabyte each."""

Item = TypeVar("Item")
Made = TypeVar("Made")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TransformersModel(LocalModel):
    """Local weights through transformers: chat, losses and embeddings. Safetensors only, no code from the model."""

    kind: Literal["transformers"] = "transformers"
    name: str = EMBEDDED
    """A folder, a hub id whose files are on this machine, or "embedded" for the small scorer that comes with tunesift;
    a run downloads nothing."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights; losses are computed in float32 from them."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        """Losses of the spans, in order; a span that alone exceeds the device's memory is a Failure."""
        weights = _weights(self)
        encode = self._encoder(weights)
        found: list[TargetLoss | Failure] = []
        for encoded in one_ahead(partial(_encoded, encode), weights.parts(spans, self.batch_tokens)):
            with stretch(len(encoded) / max(1, len(spans))):
                found += self._losses(encoded, weights)
        return found

    def _losses(self, encoded: Sequence[Segment | Failure], weights: _Weights) -> list[TargetLoss | Failure]:
        done: dict[int, TargetLoss | Failure] = {n: e for n, e in enumerate(encoded) if isinstance(e, Failure)}
        numbers = [n for n, e in enumerate(encoded) if isinstance(e, Segment)]
        segments = [e for e in encoded if isinstance(e, Segment)]
        done |= zip(numbers, all_losses(segments, self.batch_tokens, weights), strict=True)
        return [done[n] for n in range(len(encoded))]

    def single_tokens(self, targets: Sequence[str]) -> list[int | None]:
        """The one token that each text is as a target; None for a text of several, or of one that reads otherwise."""
        weights = _weights(self)
        encode = self._encoder(weights)
        return [encode.single(target) for target in targets]

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Mean of the last hidden layer over all tokens of each text, BOS included, [hidden size] each."""
        weights = _weights(self)
        encode = self._encoder(weights)
        segments = [encode(Span(text, "", bos="tokenizer")) for text in texts]
        return all_means(segments, self.batch_tokens, weights)

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion | Failure]:
        """One completion per conversation, in order; above temperature 0 each has a stream of its own."""
        if sampling.schema is not None:
            raise ParameterRefused(
                "local weights cannot be held to a JSON schema; use an endpoint, or leave schema out."
            )
        weights = _weights(self)
        said = []
        for conversation in conversations:
            said.append(weights.complete(conversation, sampling))
            beat(1 / len(conversations))
        return said

    def _encoder(self, weights: _Weights) -> SpanEncoder:
        return SpanEncoder(weights.tokenizer, self.limit_within(weights.limit), weights.quick)


class _Weights:
    """A loaded model, its tokenizer, and how its body and head are called."""

    def __init__(self, model: Any, tokenizer: Any, device: torch.device) -> None:  # Any: transformers' own classes
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.quick = QuickEncoder(tokenizer)
        self.limit = int(getattr(model.config.get_text_config(), "max_position_embeddings", 2**31))
        self.pad = int(next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None))
        self.body: Callable[..., Any] = model.base_model
        self._head: Callable[..., Any] = model.get_output_embeddings()
        self._whole = not self._splits()
        self._ends = self._end_tokens()
        self._beginnings: dict[tuple[int, ...], Any] = {}  # Any: transformers' own cache

    def parts(self, spans: Sequence[Span], tokens: int) -> list[Sequence[Span]]:
        """Spans in parts that fill some packs of so many tokens each, so that a GPU computes one while the next is cut
        into tokens; in one part for a CPU, whose cores are busy with either."""
        if self.device.type == "cpu":
            return [spans]
        room = most = AHEAD * tokens * CHARACTERS_PER_TOKEN
        begins = [0]
        for number, span in enumerate(spans):
            room -= _characters(span)
            if room < 0 and number:
                begins.append(number)
                room = most - _characters(span)
        return [spans[first:last] for first, last in pairwise([*begins, len(spans)])]

    def losses(self, segments: list[Segment], before: int = 0) -> list[TargetLoss | Failure]:
        """Losses of one batch, whose segments have their first `before` tokens in common; a span that alone exceeds
        the device's memory is a Failure."""

        def whole(part: list[Segment]) -> list[TargetLoss | Failure]:
            return list(losses(part, lambda batch: self._hidden(batch, before), self._logits, before))

        return self._by_halves(segments, whole, lambda segment: Failure("too-long", self._too_much(segment.ids)))

    def pack_losses(self, work: Work, numbers: list[int]) -> list[TargetLoss | Failure]:
        """Losses of one pack; a span that alone exceeds the device's memory is a Failure."""
        model = self.packed
        assert model is not None

        def alone(number: int) -> TargetLoss | Failure:
            return Failure("too-long", self._too_much(work.segments[number].ids))

        return self._by_halves(numbers, lambda part: list(model.losses(work, part)), alone)

    @cached_property
    def packed(self) -> PackedModel | None:
        """The model as one that reads packs; None where it cannot."""
        if self._whole:
            return None
        return packed(self.model, self._head, lambda batch: losses(batch, self._hidden, self._logits))

    def mean_hidden(self, segments: list[Segment]) -> list[tuple[float, ...]]:
        """Mean of the last hidden layer over each segment's own tokens; one padding token for an empty text."""

        def whole(part: list[Segment]) -> list[tuple[float, ...]]:
            hidden = self.body(input_ids=self._padded(part), use_cache=False).last_hidden_state  # [B, T, H]
            counts = [max(1, len(s.ids)) for s in part]
            return [tuple(h[:n].float().mean(0).tolist()) for h, n in zip(hidden, counts, strict=True)]

        return self._by_halves(segments, whole, lambda segment: self._refuse(segment.ids))

    def pack_means(self, forest: Forest, texts: list[int]) -> list[tuple[float, ...]]:
        """Mean of the last hidden layer over each text's tokens, of texts that make one pack."""
        model = self.packed
        assert model is not None
        return self._by_halves(texts, lambda part: model.means(forest, part), lambda n: self._refuse(forest.texts[n]))

    def _refuse(self, ids: tuple[int, ...]) -> tuple[float, ...]:
        raise ModelRefused(f"a text of {self._too_much(ids)}; lower the model's max_length.")

    def _by_halves(
        self, segments: list[Item], whole: Callable[[list[Item]], list[Made]], alone: Callable[[Item], Made]
    ) -> list[Made]:
        """One batch or pack; on out-of-memory its halves, down to a segment that is alone too much."""
        import torch

        try:
            with torch.inference_mode():
                return whole(segments)
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(segments) == 1:
            return [alone(segments[0])]
        half = len(segments) // 2
        _LOG.warning("out of memory with %d spans; trying %d", len(segments), half)
        return [made for part in (segments[:half], segments[half:]) for made in self._by_halves(part, whole, alone)]

    def _too_much(self, ids: tuple[int, ...]) -> str:
        return f"{len(ids)} tokens need more memory than {self.device} has"

    def complete(self, conversation: Sequence[Message], sampling: Sampling) -> Completion | Failure:
        import torch
        from transformers import GenerationConfig

        said = segment_of(SpanEncoder(self.tokenizer, self.limit), Span(tuple(conversation), ""))
        if isinstance(said, Failure):
            return said
        room = min(sampling.max_tokens, self.limit - len(said.ids))
        if room < 1:
            return Failure("too-long", f"the conversation leaves no room in the model's {self.limit} tokens")
        heat = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
        # The model's own generation_config.json may penalise or cut off tokens; Sampling says all that is wanted.
        self.model.generation_config = GenerationConfig(eos_token_id=self._ends or None, pad_token_id=self.pad,
                                                         **(heat if sampling.temperature > 0 else {}))  # fmt: skip
        seed = int.from_bytes(content_digest((sampling.seed, tuple(conversation)))[:7], "big")
        prompt = self._row(said.ids)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            out = self.model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=room)
        return self._completion(out[0, len(said.ids) :].tolist(), sampling)

    def _completion(self, ids: list[int], sampling: Sampling) -> Completion:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        cut = min((text.find(s) for s in sampling.stop if s in text), default=-1)
        ended = cut >= 0 or ids[-1] in self._ends
        return Completion(text[:cut] if cut >= 0 else text, "stop" if ended else "length", len(ids))

    def _end_tokens(self) -> list[int]:
        """What ends an answer: chat models often name more than their tokenizer's EOS."""
        named = getattr(self.model.generation_config, "eos_token_id", None)
        several = named if isinstance(named, list) else [named]
        return sorted({i for i in (*several, self.tokenizer.eos_token_id) if i is not None})

    def _hidden(self, segments: list[Segment], before: int = 0) -> torch.Tensor:
        """[B, T, H]; right padding needs no mask, because no causal model looks to the right."""
        ids = self._padded(segments)
        options: dict[str, Any] = {"use_cache": False}
        if before:
            known = self._begun(segments[0].ids[:before])
            known.batch_repeat_interleave(len(segments))
            ids, options = ids[:, before:], {"use_cache": True, "past_key_values": known}
        if self._whole:
            return self.model(input_ids=ids, **options).logits  # type: ignore[no-any-return]  # [B, T, V]
        return self.body(input_ids=ids, **options).last_hidden_state  # type: ignore[no-any-return]

    def _begun(self, ids: tuple[int, ...]) -> Any:  # Any: transformers' own cache
        """What the model remembers of a beginning, as one row to be changed.

        Short ones are kept, so that a rating prompt is read once and not once per batch.
        """
        known = self._beginnings.pop(ids, None)
        if known is None:
            known = self.body(input_ids=self._row(ids), use_cache=True).past_key_values
        if len(ids) <= REMEMBERED:
            self._beginnings[ids] = known  # the latest last
            while sum(map(len, self._beginnings)) > REMEMBERED:
                del self._beginnings[next(iter(self._beginnings))]
            known = deepcopy(known)
        return known

    @cached_property
    def resumes(self) -> bool:
        """Whether the model goes on from a remembered beginning as if it had read the whole."""
        import torch

        count = int(self.model.config.get_text_config().vocab_size)
        ids = [tuple(n % count for n in (*range(1, 9), *end)) for end in (range(9, 13), range(30, 34))]
        both = [Segment(i, 12, truncated=False) for i in ids]
        with torch.inference_mode():
            try:
                same = bool(torch.allclose(self._hidden(both, 8), self._hidden(both)[:, 8:], rtol=1e-3, atol=1e-3))
            except (AttributeError, NotImplementedError, TypeError, ValueError):  # a memory of another kind
                same = False
        if not same:
            _LOG.warning("%s: cannot go on from a remembered beginning; texts are read whole", self.model.name_or_path)
        return same

    def _row(self, ids: Sequence[int]) -> torch.Tensor:
        import torch

        return torch.tensor([ids], device=self.device)  # [1, T]

    def _padded(self, segments: list[Segment]) -> torch.Tensor:
        import torch

        longest = max(1, *(len(s.ids) for s in segments))
        rows = [[*s.ids, *[self.pad] * (longest - len(s.ids))] for s in segments]
        return torch.tensor(rows, device=self.device)  # [B, T]

    def _logits(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows if self._whole else self._head(rows)).float()

    def _splits(self) -> bool:
        """Whether body and head apart give the model's own logits; some models scale or cap them in between."""
        import torch

        with torch.inference_mode():
            ids = torch.arange(1, 9, device=self.device)[None] % self.model.config.get_text_config().vocab_size
            whole = self.model(input_ids=ids, use_cache=False).logits
            apart = self._head(self.body(input_ids=ids, use_cache=False).last_hidden_state)
            same = bool(torch.allclose(whole.float(), apart.float(), rtol=1e-3, atol=1e-3))
        if not same:
            _LOG.warning(
                "%s: logits are changed after the head; projecting whole texts instead", self.model.name_or_path
            )
        return same


@dataclass(frozen=True, kw_only=True)
class TunedModel(TransformersModel):
    """A model that a run has trained: known by what it was made of, wherever its folder is moved to."""

    place: Annotated[str, INCIDENTAL]
    """Its folder."""

    def identity(self) -> str:
        """The checkpoint's digest, of its settings and its data."""
        return self.name

    @property
    def location(self) -> str:
        """Where the weights are: in the checkpoint's folder."""
        return self.place


def _encoded(encode: SpanEncoder, spans: Sequence[Span]) -> list[Segment | Failure]:
    return [segment_of(encode, span) for span in spans]


def _characters(span: Span) -> int:
    before = span.context if isinstance(span.context, str) else "".join(m.text for m in span.context)
    return len(before) + len(span.target)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch's means that the device has no more memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "MPS backend out of memory"))


@dataclass(frozen=True, slots=True)
class _Loaded:
    identity: str
    weights: _Weights


_LOADED: dict[tuple[str, str | None, str, str], _Loaded] = held({})
"""By name, revision, type and device."""


def _weights(model: TransformersModel) -> _Weights:
    place, identity = (model.location, model.revision, model.dtype, model.device), model.identity()
    with LOADING:  # two threads must not load the same weights twice
        if place not in _LOADED or _LOADED[place].identity != identity:
            _LOADED.pop(place, None)  # weights that changed on disk make room before they are loaded anew
            with loading(model.name):
                _LOADED[place] = _Loaded(identity, _load(*place))
        return _LOADED[place].weights


def _load(name: str, revision: str | None, dtype: str, device: str) -> _Weights:
    model, tokenizer = load("AutoModelForCausalLM", name, device, revision, dtype)
    fuse(model)
    return _Weights(model, tokenizer, model.device)
