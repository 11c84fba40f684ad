"""How does a model read many texts in one piece? As a pack, whose tokens see their own texts and nothing else.

For any Hugging Face causal language model whose attention goes through transformers' interface: there stands our own
function, which lets a token see what `packing` says. Of each model it is found out at load whether this gives what it
says of the same texts one by one; where it does not, texts are padded into batches.

Legend: T rows of a pack, N heads, D size of one, H hidden size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tunesift.models.base import TargetLoss
from tunesift.models.lastlayer import LastLayer
from tunesift.models.likelihood import Segment
from tunesift.models.lse import Head
from tunesift.models.packing import Forest, Pack, Stretch, filled, grown, laid, packs
from tunesift.models.products import multiplying, room

if TYPE_CHECKING:
    import torch

ATTENTION = "tunesift_packed"
"""What transformers knows our attention as."""
MOST_ON_CPU = 1024
"""Tokens of a pack on a CPU, however many a batch may have: more make the products no faster."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "local_attention")
"""Settings of a config that let a token see only so many before it."""
_STRETCHED = ("dynamic", "longrope")
"""Ways to encode places in which those of a short text depend on the longest text that is read with it."""
_CHANGES = ("softcap", "s_aux", "position_bias")
"""What some models want of an attention besides; ours does not give it."""
_UNFIT = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What a model raises that takes no pack."""
_NEAR = {"torch.float32": 1e-4, "torch.float16": 2e-2, "torch.bfloat16": 2e-1}
"""How far losses of one text may lie apart that are the same but for rounding, in nats, by the type of the weights."""

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reading:
    """A pack that goes through a model just now."""

    pack: Pack
    mask: Any = None  # Any: a tensor, or a mask of blocks
    calls: int = 0
    """Times that the attention was asked."""
    window: int | None = None
    """Tokens that a layer would see at most, if one said."""


_READING: ContextVar[_Reading | None] = ContextVar("reading", default=None)


def attend(  # Any: transformers' own module, and whatever else it passes
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """Attention within texts; queries [1, N, T, D] to [1, T, N, D]."""
    reading = _READING.get()
    causal = options.get("is_causal", getattr(module, "is_causal", True))
    odd = [name for name in _CHANGES if options.get(name) is not None]
    if reading is None or attention_mask is not None or causal is False or odd:
        raise NotImplementedError(f"attention with {', '.join(odd) or 'a mask of its own'}")
    window = options.get("sliding_window")
    if isinstance(window, int):
        reading.window = min(window, reading.window or window)
    reading.calls += 1
    if (shared := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    alike = query.shape[-1] == value.shape[-1]  # the calls for stretches and blocks take no values of another size
    way = {"cpu": by_stretches, "cuda": by_blocks}.get(query.device.type if alike else "", by_mask)
    return way(query, key, value, options.get("scaling"), reading).transpose(1, 2), None


def by_stretches(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, reading: _Reading
) -> torch.Tensor:
    """One small call for each stretch, and one for what all that goes on from a stretch sees of it."""
    import torch

    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    found = torch.empty_like(query.transpose(1, 2)).transpose(1, 2)  # [1, N, T, D]
    weight = torch.empty(query.shape[:3])  # [1, N, T]: logarithms of the sums that the softmax divides by
    for stretch in reading.pack.stretches:
        own = slice(stretch.first, stretch.last)
        found[:, :, own], weight[:, :, own] = flash(
            query[:, :, own], key[:, :, own], value[:, :, own], 0.0, True, scale=scale
        )
    for stretch in reading.pack.stretches:
        if stretch.end > stretch.last:
            seen, later = slice(stretch.first, stretch.last), slice(stretch.last, stretch.end)
            more, sums = flash(query[:, :, later], key[:, :, seen], value[:, :, seen], 0.0, False, scale=scale)
            share = torch.sigmoid(sums - weight[:, :, later])[..., None]  # of what is seen in that stretch
            found[:, :, later].lerp_(more, share.to(found.dtype))
            weight[:, :, later] = torch.logaddexp(weight[:, :, later], sums)
    return found


def by_mask(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, reading: _Reading
) -> torch.Tensor:
    """One call with a mask of T times T."""
    import torch

    if reading.mask is None:
        ends = _ends(reading.pack.stretches, query.device)
        row = torch.arange(len(ends), device=query.device)
        reading.mask = (row[None, :] <= row[:, None]) & (row[:, None] < ends[None, :])  # [T, T]
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, reading.mask, scale=scale)


def by_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, reading: _Reading
) -> torch.Tensor:
    """FlexAttention, which passes over blocks that nothing in them may see."""
    blocks, attention = _flex(query.device.type == "cuda")
    if reading.mask is None:
        ends, rows = _ends(reading.pack.stretches, query.device), query.shape[2]

        def seen(batch: Any, head: Any, row: Any, other: Any) -> Any:  # Any: tensors that are traced
            return (other <= row) & (row < ends[other])

        reading.mask = blocks(seen, None, None, rows, rows, device=str(query.device))
    return attention(query, key, value, block_mask=reading.mask, scale=scale)  # type: ignore[no-any-return]


@cache
def _flex(compiled: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:  # Any: torch's own mask of blocks
    """What makes a mask of blocks, and what attends by one; packs differ in length, so neither is compiled for one."""
    import torch
    from torch.nn.attention import flex_attention as flex

    if not compiled:
        return flex.create_block_mask, flex.flex_attention
    return (
        torch.compile(flex.create_block_mask, dynamic=True),
        torch.compile(flex.flex_attention, dynamic=True),
    )


def _ends(stretches: Sequence[Stretch], device: torch.device) -> torch.Tensor:
    """For each row, the row behind the last that may see it, [T]."""
    import torch

    found = [s.end for s in stretches for _ in range(s.first, s.last)]
    return torch.tensor(found, device=device)


class PackedModel:
    """A model that reads packs."""

    def __init__(self, model: Any, head: torch.nn.Linear) -> None:  # Any: transformers' own class
        from transformers import AttentionInterface

        AttentionInterface.register(ATTENTION, attend)
        self._model, self._head = model, Head(head)
        config = model.config.get_text_config()
        self.vocabulary, self._layers = int(config.vocab_size), int(getattr(config, "num_hidden_layers", 0))
        self.last: LastLayer | None = LastLayer(model.base_model, self._layers)
        self.reach = _reach(config)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """While our attention stands where the model's own is."""
        before = self._model.config._attn_implementation
        self._model.set_attn_implementation(ATTENTION)
        try:
            yield
        finally:
            self._model.set_attn_implementation(before)

    def hidden(self, pack: Pack, read: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states of a pack's rows, [T, H], while it attends; of rows that are not read they may be anything."""

        device = self._model.device
        pack = filled(pack, room(len(pack.ids), device))
        reading = _Reading(pack)
        token = _READING.set(reading)
        some = nullcontext() if read is None or self.last is None else self.last.at(read, len(pack.ids))
        try:
            ids, places = (_moved(numbers, device) for numbers in (pack.ids, pack.places))
            with some, multiplying(device):
                out = self._model.base_model(input_ids=ids, position_ids=places, use_cache=False)
        finally:
            _READING.reset(token)
        if reading.calls != self._layers:
            raise NotImplementedError("layers that see what no attention of ours lets them see")
        self.reach = min(self.reach, reading.window or self.reach)
        return out.last_hidden_state[0]  # type: ignore[no-any-return]

    @property
    def lanes(self) -> int:
        """Packs that are read at a time: on a CPU one for each thread that torch is given."""
        import torch

        return torch.get_num_threads() if self._model.device.type == "cpu" else 1

    def tokens(self, wanted: int) -> int:
        """Tokens of one pack, where a batch is to have so many."""
        return min(wanted, MOST_ON_CPU) if self._model.device.type == "cpu" else wanted

    def losses(self, work: Work, numbers: Sequence[int]) -> list[TargetLoss]:
        """Losses of some segments of the work, which make one pack."""
        import torch

        pack = laid(work.forest, {work.text[n] for n in numbers})
        rows: list[int] = []  # row that predicts each gold token
        gold: list[int] = []
        counts = []
        for number in numbers:
            segment, own = work.segments[number], pack.rows[work.text[number]]
            first = max(segment.start, 1)  # a token with nothing before it has no prediction
            rows += own[first - 1 :]
            gold += segment.ids[first:]
            counts.append(len(own) - first + 1)
        read, which = torch.unique(torch.tensor(rows), return_inverse=True)
        order = torch.argsort(which)
        device = self._model.device
        again = read[-1:].expand(room(len(read), device) - len(read))  # nobody asks what these give
        there = torch.cat((read, again)).to(device)
        picked = self.hidden(pack, there)[there]  # [R, H]
        nats = torch.empty(len(gold))
        nats[order] = self._head.nats(picked, which[order], torch.tensor(gold)[order])
        several = torch.split(nats, counts)
        return [
            TargetLoss(tuple(own.tolist()), work.segments[n].truncated) for own, n in zip(several, numbers, strict=True)
        ]

    def means(self, forest: Forest, texts: Sequence[int]) -> list[tuple[float, ...]]:
        """Mean of the hidden states over all tokens of each text, [H] each, of texts that make one pack."""
        pack = laid(forest, texts)
        hidden = self.hidden(pack)  # [T, H]
        return [tuple(hidden[pack.rows[text]].float().mean(0).tolist()) for text in texts]


@dataclass(frozen=True, slots=True)
class Work:
    """Segments with a target, and the texts that are to be read for them: all but the last token, each text once."""

    segments: Sequence[Segment]
    text: list[int]
    """Number of each segment's text."""
    forest: Forest

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Work:
        """What is to be read for segments, each of which has a target token that something stands before."""
        known: dict[tuple[int, ...], int] = {}
        text = [known.setdefault(s.ids[:-1], len(known)) for s in segments]
        return cls(segments, text, grown(list(known)))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each segment."""
        return [len(segment.ids) for segment in self.segments]

    def groups(self, tokens: int) -> Iterator[list[int]]:
        """Numbers of the segments that go together, so many tokens at most."""
        owners: dict[int, list[int]] = {}
        for number, text in enumerate(self.text):
            owners.setdefault(text, []).append(number)
        for texts in packs(self.forest, tokens):
            yield [number for text in texts for number in owners[text]]


def _moved(numbers: Sequence[int], device: torch.device) -> torch.Tensor:
    """Numbers of one text on a device, [1, T]; to a GPU out of pinned memory, so that nothing waits for the copy."""
    import torch

    return torch.tensor([numbers], pin_memory=device.type == "cuda").to(device, non_blocking=True)


def _reach(config: Any) -> int:  # Any: transformers' own class
    """Tokens up to which no token is too far from another to be seen, or placed otherwise for what it is read with."""
    limits = [n for n in (getattr(config, name, None) for name in _WINDOWS) if isinstance(n, int)]
    said = getattr(config, "rope_parameters", None) or {}
    for way in (said, *(v for v in said.values() if isinstance(v, dict))):
        if way.get("rope_type") in _STRETCHED:
            limits.append(int(way.get("original_max_position_embeddings") or config.max_position_embeddings))
    return min(limits, default=2**31)


def packed(
    model: Any, head: Any, one_by_one: Callable[[list[Segment]], Sequence[TargetLoss]]
) -> PackedModel | None:  # Any: transformers' and torch's own classes
    """The model as one that reads packs; None, with a warning, where a pack of three texts changes their losses."""
    import torch

    said = "another head than a matrix"
    if type(head) is torch.nn.Linear:
        found = PackedModel(model, head)
        for last in (found.last, None):  # of some kinds, a last layer works on all rows or on none
            found.last = last
            if not (said := _fault(found, one_by_one, _NEAR.get(str(model.dtype), 1e-4))):
                return found
    _LOG.warning("%s: cannot read texts in packs (%s); they are padded instead", model.name_or_path, said)
    return None


def _fault(model: PackedModel, one_by_one: Callable[[list[Segment]], Sequence[TargetLoss]], near: float) -> str:
    """What is wrong with losses of texts in a pack; empty where they are those of each text by itself."""
    import torch

    segments = _probes(model.vocabulary)
    try:
        with torch.inference_mode(), model.attending():
            got = model.losses(Work.of(segments), range(len(segments)))
        with torch.inference_mode():
            expected = [one_by_one([segment])[0] for segment in segments]
    except _UNFIT as error:
        return str(error)[:120] or type(error).__name__
    both = [pair for g, e in zip(got, expected, strict=True) for pair in zip(g.nats, e.nats, strict=True)]
    far = [abs(a - b) for a, b in both if a == a or b == b]  # what is no number by itself is to be none in a pack
    apart = max((math.inf if math.isnan(d) else d for d in far), default=0.0)
    return "" if apart <= near else f"losses {apart:.2g} nats off"


def _probes(vocabulary: int) -> list[Segment]:
    """Two texts that begin alike, and one that does not; in one pack, less than half of the rows are read, some of them
    of what is shared."""
    begin, *ends = ([(7 * n + 3) % vocabulary for n in r] for r in (range(12), range(20, 31), range(40, 58)))
    texts = [(*begin, *ends[0]), (*begin, *ends[1]), tuple((5 * n + 1) % vocabulary for n in range(23))]
    return [Segment(text, start, truncated=False) for text, start in zip(texts, (10, 27, 15), strict=True)]
