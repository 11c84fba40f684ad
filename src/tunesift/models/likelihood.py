"""The arithmetic of losses: where does the target start, which row predicts which token, what fits into a batch?

Legend: B spans of a batch, T tokens of its longest span, R target tokens of the batch, H hidden size, V vocabulary.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Protocol

from tunesift.errors import ModelRefused
from tunesift.models.base import Span, TargetLoss
from tunesift.models.templates import RENDERER, TemplateFault
from tunesift.records import Message

if TYPE_CHECKING:
    import torch

GAP = " [...] "
"""What stands for text that was left out in the middle."""
FEW_ROWS = 2
"""Rows of a batch that are not divided, however unlike their lengths."""
HEAD_BYTES = 32 * 2**20
"""Bytes of float32 logits that exist at one time."""


class Quick(Protocol):
    """A quicker way to a tokenizer's own tokens, without special ones; None for a text whose it does not know."""

    def __call__(self, text: str) -> list[int] | None: ...
    def joint(self, before: str, after: str, known: dict[str, list[int]]) -> tuple[list[int], int] | None:
        """Tokens of two texts as one, and how many the first has alone; `known` is what was cut for others."""
        ...


class Tokenizer(Protocol):
    """What we use of a Hugging Face tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None
    chat_template: str | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...  # Any: tokenizers' own AddedToken

    @property
    def special_tokens_map(self) -> Mapping[str, Any]: ...  # Any: a text, or several

    def __call__(self, text: str, **options: Any) -> Any: ...  # Any: tokenizers' own options, and their own answer
    def get_chat_template(self) -> str: ...
    def decode(self, token_ids: Sequence[int], **options: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens of a span; those from `start` on are its target."""

    ids: tuple[int, ...]
    start: int
    truncated: bool
    others: tuple[int, ...] = ()
    """Further tokens whose losses are wanted at the place of the last one: other answers to the same context."""


class SpanEncoder:
    """Turns spans into tokens; made for one call of `loss`, because it remembers the texts it has seen.

    A `quick` way is asked for the tokens of a text before the tokenizer is.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int, quick: Quick | None = None) -> None:
        self.tokenizer, self.limit, self._quick = tokenizer, limit, quick
        special = {number: str(t) for number, t in tokenizer.added_tokens_decoder.items() if t.special}
        self._loose = any(t.normalized for t in tokenizer.added_tokens_decoder.values() if t.special)
        self._control = special.keys() - {tokenizer.unk_token_id}
        self._names = tuple(special.values())
        self._names_begin = commonprefix(self._names)  # noqa: RUF071  of names, not of paths: most often one look is enough
        self._added: list[int] | None = None  # what the tokenizer puts before a text
        self._targets: dict[str, list[int]] = {}
        self._lengths: dict[str, int] = {}
        self._pieces: dict[str, list[int]] = {}
        self._contexts: dict[tuple[str, str], list[int]] = {}
        self._fits: dict[tuple[Any, ...], str | tuple[Message, ...] | None] = {}  # Any: what decides where to cut
        self._adds_space = self._plain("\nx") != [*self._plain("\n"), *self._plain("x")]

    def __call__(self, span: Span) -> Segment:
        """Tokens of a span, at most the smaller of its own limit and the model's."""
        most = min(self.limit, span.limit or self.limit)
        segment = self._cut(span, most)
        if segment.truncated and (context := self._shortened(span, most)) is not None:
            return replace(self._cut(replace(span, context=context), most), truncated=True)
        return segment

    def whole(self, conversation: Sequence[Message]) -> list[int]:
        """Tokens of a conversation with its last answer and what ends it, however many; raises `TemplateFault`."""
        return self._conversation(conversation, open=False)

    def _cut(self, span: Span, most: int) -> Segment:
        if span.seam == "joint" and not self._names_special(span.context, span.target):
            ids, start = self._joint(span)
        else:
            before = self._context(span)
            ids, start = [*before, *self._target(span.target)], len(before)
        return Segment(tuple(ids[:most]), start, len(ids) > most)

    def _shortened(self, span: Span, most: int) -> str | tuple[Message, ...] | None:
        """The context with as little as possible left out of what it can spare, in the middle; None where none fits."""
        if span.spare is None or span.seam == "joint":
            return None
        room = most - len(self._target(span.target))
        known = (span.context, span.bos, span.spare, room)
        if known not in self._fits:
            self._fits[known] = self._longest(span, span.spare, room)
        return self._fits[known]

    def _longest(self, span: Span, spare: tuple[int, int], room: int) -> str | tuple[Message, ...] | None:
        first, last = spare
        fitting, low, high = None, 0, last - first  # characters that are kept of what can be spared
        while low < high:
            kept = (low + high) // 2
            shorter = _without_middle(span.context, first + (kept + 1) // 2, last - kept // 2)
            if self._size(replace(span, context=shorter)) <= room:
                fitting, low = shorter, kept + 1
            else:
                high = kept
        return fitting

    def _size(self, span: Span) -> int:
        """Tokens of a context that is looked at once."""
        if isinstance(span.context, str):
            return len(self._begin(span)) + len(self._plain(span.context))
        return len(self._conversation(span.context))

    def _joint(self, span: Span) -> tuple[list[int], int]:
        if isinstance(span.context, str):
            begin, before = self._begin(span), span.context
        else:
            begin, before = [], render(span.context, self.tokenizer)
        found = self._quick.joint(before, span.target, self._pieces) if self._quick else None
        if found is not None:
            return [*begin, *found[0]], len(begin) + found[1]
        if before not in self._lengths:
            self._lengths[before] = len(self._marked(before))
        return [*begin, *self._marked(before + span.target)], len(begin) + self._lengths[before]

    def _context(self, span: Span) -> list[int]:
        if not isinstance(span.context, str):
            return self._conversation(span.context)
        known = (span.context, span.bos)
        if known not in self._contexts:
            self._contexts[known] = [*self._begin(span), *(self._plain(span.context) if span.context else [])]
        return self._contexts[known]

    def _begin(self, span: Span) -> list[int]:
        if span.bos == "always":
            return [first_token(self.tokenizer)]
        if self._added is None:  # some add EOS, too, which nothing here is to predict or to follow
            self._added = [i for i in self.tokenizer("")["input_ids"] if i == self.tokenizer.bos_token_id]
        return self._added

    def _conversation(self, conversation: Sequence[Message], open: bool = True) -> list[int]:
        """The rendered conversation; where its texts hold the name of a special token, that stays plain text."""
        if not self._names_special(conversation):
            return self._marked(render(conversation, self.tokenizer, open))
        marks = [chr(0xE000 + n) for n in range(len(conversation))]
        frame = render([Message(m.role, c) for m, c in zip(conversation, marks, strict=True)], self.tokenizer, open)
        texts = dict(zip(marks, (m.text for m in conversation), strict=True))
        first, *rest = re.split(f"([{''.join(marks)}])", frame)
        tails = (self._tail(texts[p], self._plain) if p in texts else self._tail(p, self._marked) for p in rest)
        return [*self._marked(first), *(i for tail in tails for i in tail)]

    def _names_special(self, context: str | Sequence[Message], target: str = "") -> bool:
        texts = [*([context] if isinstance(context, str) else (m.text for m in context)), target]
        if self._loose:  # a name may be written otherwise, such as in capitals, and be one all the same
            return any(not self._control.isdisjoint(self._marked(text)) for text in texts)
        return any(name in text for text in texts if self._names_begin in text for name in self._names)

    def _target(self, target: str) -> list[int]:
        """The target's own tokens, without the leading-space piece that some tokenizers put before every text."""
        if target not in self._targets:
            self._targets[target] = self._tail(target, self._plain)
        return self._targets[target]

    def single(self, target: str) -> int | None:
        """The one token that a target is; None for several, or where the token is not read as the target again."""
        ids = self._target(target)
        same = len(ids) == 1 and self.tokenizer.decode(ids).strip() == target.strip()
        return ids[0] if same else None

    def _tail(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Tokens of text that other text stands before."""
        for header in ("\n", "0", "#") if self._adds_space else ():
            alone, both = encode(header), encode(header + text)
            if both[: len(alone)] == alone:
                return both[len(alone) :]
        return encode(text)

    def _plain(self, text: str) -> list[int]:
        """Tokens of text that is data: the name of a special token in it stays plain text."""
        ids = self._split(text)
        if self._control.isdisjoint(ids):
            return ids
        # A Unigram vocabulary holds those names as pieces: what is cut inside a name cannot become one.
        inside = "|".join(f"(?<={re.escape(n[0])})(?={re.escape(n[1:])})" for n in self._names)
        first, *rest = re.split(inside, text)
        return [*self._split(first), *(i for part in rest for i in self._tail(part, self._split))]

    def _split(self, text: str) -> list[int]:
        return self._tokens(text, split_special_tokens=True)

    def _marked(self, text: str) -> list[int]:
        return self._tokens(text) if text else []

    def _tokens(self, text: str, **options: bool) -> list[int]:
        known = self._quick(text) if self._quick else None
        return list(self.tokenizer(text, add_special_tokens=False, **options)["input_ids"]) if known is None else known


def _without_middle(context: str | tuple[Message, ...], first: int, last: int) -> str | tuple[Message, ...]:
    """A context whose text, or whose last message's, lacks the characters from one up to the other."""
    text = context if isinstance(context, str) else context[-1].text
    shorter = text[:first] + GAP + text[last:]
    return shorter if isinstance(context, str) else (*context[:-1], replace(context[-1], text=shorter))


def first_token(tokenizer: Tokenizer) -> int:
    """What stands before a text: BOS, or EOS for a tokenizer without one."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise ModelRefused("the tokenizer has neither a BOS nor an EOS token; use another scorer.")
    return token


def render(conversation: Sequence[Message], tokenizer: Tokenizer, open: bool = True) -> str:
    """The conversation in the model's own chat template; if it is `open`, up to where a response begins."""
    if tokenizer.chat_template is None:
        raise ModelRefused("the model has no chat template; give one that has, or set template to alpaca or bare.")
    turns = [{"role": m.role, "content": m.text} for m in conversation]
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # several, and none of them is the usual one
        raise TemplateFault(str(error)) from None
    return RENDERER.render(template, turns, tokenizer.special_tokens_map, open)


def batches(segments: Sequence[Segment], tokens: int) -> Iterator[list[int]]:
    """Which segments go together: in order of length, as many as fit `tokens` once padded to the longest.

    A batch of some rows ends before more than an eighth of it is padding.
    """
    order = sorted(range(len(segments)), key=lambda n: (-len(segments[n].ids), n))
    batch: list[int] = []
    used = 0
    for number in order:
        length = len(segments[number].ids)
        padded = len(segments[(batch or [number])[0]].ids) * (len(batch) + 1)
        wasteful = len(batch) >= FEW_ROWS and 8 * (padded - used - length) > padded
        if batch and (padded > tokens or wasteful):
            yield batch
            batch, used = [], 0
        batch.append(number)
        used += length
    if batch:
        yield batch


def losses(
    segments: Sequence[Segment],
    hidden_of: Callable[[list[Segment]], torch.Tensor],
    head: Callable[[torch.Tensor], torch.Tensor],
    before: int = 0,
) -> list[TargetLoss]:
    """Losses of one padded batch; `hidden_of` gives [B, T, H] of the tokens after the first `before` of each segment,
    `head` turns rows of it into logits in float32. A segment's other tokens come after its own."""
    import torch

    rows: list[tuple[int, int]] = []  # number of the segment, and the position whose logits are read
    which: list[int] = []  # row that predicts each gold token
    gold, counts = [], []
    for number, segment in enumerate(segments):
        first = max(segment.start, 1)  # a token with nothing before it has no prediction
        targets = range(first, len(segment.ids))
        which += range(len(rows), len(rows) + len(targets))
        rows += [(number, position - 1 - before) for position in targets]  # the row before a token predicts it
        which += [len(rows) - 1] * len(segment.others)
        gold += [*segment.ids[first:], *segment.others]
        counts.append(len(targets) + len(segment.others))
    if not rows:
        return [TargetLoss((), s.truncated) for s in segments]
    hidden = hidden_of(list(segments))  # [B, T, H]
    where = torch.tensor(rows, device=hidden.device)
    picked = hidden[where[:, 0], where[:, 1]]  # [R, H]
    nats = torch.split(_nats(picked, which, torch.tensor(gold, device=hidden.device), head), counts)
    return [TargetLoss(tuple(n.tolist()), s.truncated) for n, s in zip(nats, segments, strict=True)]


def _nats(
    picked: torch.Tensor, which: list[int], gold: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Negative log-likelihood of each gold token under its row, [G]; projects a few rows at a time."""
    import torch

    vocabulary = head(picked[:1]).shape[-1]
    step = max(1, HEAD_BYTES // (4 * vocabulary))
    parts = []
    for start in range(0, len(picked), step):
        logits = head(picked[start : start + step])  # [<=step, V]
        first, last = bisect_left(which, start), bisect_left(which, start + step)  # rows come in order
        row = torch.tensor(which[first:last], device=logits.device) - start
        parts.append(torch.logsumexp(logits, dim=1)[row] - logits[row, gold[first:last]])
    return torch.cat(parts).cpu()
