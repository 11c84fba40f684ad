"""How do local weights answer about images? Any Hugging Face vision-language model, from a folder or by its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tunesift.errors import ModelRefused, ParameterRefused, first_line
from tunesift.heartbeat import beat, loading
from tunesift.image_fields import MEDIA_MARK
from tunesift.images import picture
from tunesift.models.base import Completion, Sampling
from tunesift.models.folders import LOADING, context_of, not_taken
from tunesift.models.http import NOT_GIVEN
from tunesift.models.loading import held, load
from tunesift.models.templates import RENDERER, TemplateFault
from tunesift.models.transformers import TransformersModel
from tunesift.records import Failure, Message, RowFault, content_digest
from tunesift.settings import INCIDENTAL

_APART = "\u2060"
"""Invisible; put into the name of a special token that stands in a text, so that it stays text."""
NOT_READ = (ValueError, TypeError)
"""What a model's own processor raises for an image that is sound but not for it, as one of 300 by 1 pixels."""


@dataclass(frozen=True, kw_only=True)
class VisionModel(TransformersModel):
    """Local weights that read images, through transformers: chat. Safetensors only, no code from the model."""

    kind: Literal["vision"] = "vision"  # type: ignore[assignment]  # another kind of the same weights
    name: str = NOT_GIVEN
    """A folder, or a hub id whose files are on this machine; a run downloads nothing."""
    max_length: int | None = None
    """Most tokens of one conversation, those of its images included; None for as many as the model reads."""
    batch_tokens: Annotated[int, INCIDENTAL] = 4096
    """Without effect: conversations are read one at a time."""
    images: Annotated[Path | None, INCIDENTAL] = None
    """The folder that image files are relative to, and that they must be in; None for that of the input."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion | Failure]:
        """One completion per conversation, in order; a Failure for an image that cannot be used."""
        if sampling.schema is not None:
            raise ParameterRefused(
                "local weights cannot be held to a JSON schema; use an endpoint, or leave schema out."
            )
        weights = _weights(self)
        said: list[Completion | Failure] = []
        for conversation in conversations:
            said.append(weights.complete(conversation, sampling, self))
            beat(1 / len(conversations))
        return said

    def most_tokens(self) -> int | None:
        """Most tokens of one conversation, by the model's files; None where they are not here, or do not say."""
        limits = (self.max_length, context_of(self.location, self.revision))
        return min((n for n in limits if n is not None), default=None)

    @property
    def home(self) -> Path:
        """The folder of images."""
        return self.images or Path()


class Writer:
    """Writes a conversation as a model's own chat template has it, with marks where images stand.

    What is text stays text: the name of a special token in it means nothing.
    """

    def __init__(self, processor: Any) -> None:  # Any: transformers' own class
        self._template = processor.chat_template or processor.tokenizer.chat_template
        if isinstance(self._template, Mapping):
            self._template = self._template.get("default")
        if self._template is None:
            raise ModelRefused("student: the model has no chat template; give a vision-language model that chats.")
        tokenizer = processor.tokenizer
        self._more = dict(tokenizer.special_tokens_map)
        marks = (getattr(processor, name, None) for name in ("image_token", "video_token", "audio_token"))
        special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        self._special = sorted({*special, *(mark for mark in marks if isinstance(mark, str))}, key=len, reverse=True)
        bos = tokenizer.bos_token
        self._begin = bos if bos and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else ""
        self._end = tokenizer.eos_token or ""

    def prompt(self, conversation: Sequence[Message]) -> str:
        """Up to where the model's answer begins; raises `TemplateFault` for what is no conversation to it."""
        return self._written(conversation, open=True)

    def pair(self, prompt: Sequence[Message], answers: Sequence[Message]) -> tuple[str, tuple[str, ...]]:
        """A prompt, and what stands behind it with each answer, up to what ends a turn or the EOS token."""
        begin = self.prompt(prompt)
        whole = [self._written((*prompt, answer), open=False) for answer in answers]
        while not all(
            text.startswith(begin) for text in whole
        ):  # some templates open an answer with more than they show
            begin = begin[:-1]
        return begin, tuple(self._ended(text[len(begin) :], said) for text, said in zip(whole, answers, strict=True))

    def _written(self, conversation: Sequence[Message], open: bool) -> str:
        turns: list[Any] = [{"role": m.role, "content": self._parts(m)} for m in conversation]  # Any: parts
        text = RENDERER.render(self._template, turns, self._more, open)
        return text if not self._begin or text.startswith(self._begin) else self._begin + text

    def _parts(self, message: Message) -> list[dict[str, str]]:
        """A message's parts: its images where its text marks them, those that it does not mark before the text."""
        pieces = message.text.split(MEDIA_MARK, len(message.images))
        unmarked = len(message.images) - (len(pieces) - 1)
        parts = [{"type": "image"}] * unmarked
        for number, piece in enumerate(pieces):
            parts = [*parts, {"type": "image"}] if number else parts
            parts = [*parts, {"type": "text", "text": self._plain(piece)}] if piece else parts
        return parts

    def _plain(self, text: str) -> str:
        for token in self._special:
            text = text.replace(token, f"{token[0]}{_APART}{token[1:]}") if len(token) > 1 else text
        return text

    def _ended(self, answer: str, said: Message) -> str:
        end = answer.rpartition(self._plain(said.text).strip())[2]
        return answer if end.strip() else f"{answer}{self._end}"


def not_read(error: Exception) -> Failure:
    """An image that can be opened, and that the model's own processor makes nothing of."""
    return Failure("unreadable", f"the model's processor takes no such image ({first_line(error)})")


def pictures(conversation: Sequence[Message], home: Path) -> list[Any]:  # Any: Pillow's own class
    """The images of a conversation, in order; raises `RowFault` for one that cannot be used."""
    return [picture(name, home) for message in conversation for name in message.images]


class _Weights:
    """A loaded model, and what reads texts and images for it."""

    def __init__(self, model: Any, processor: Any) -> None:  # Any: transformers' own classes
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        self.limit = int(getattr(model.config.get_text_config(), "max_position_embeddings", 2**31))
        self._writer = Writer(processor)
        named = getattr(model.generation_config, "eos_token_id", None)
        several = named if isinstance(named, list) else [named]
        self._ends = sorted({i for i in (*several, self.tokenizer.eos_token_id) if i is not None})
        self._pad = int(next(i for i in (self.tokenizer.pad_token_id, *self._ends, 0) if i is not None))

    def complete(self, conversation: Sequence[Message], sampling: Sampling, asked: VisionModel) -> Completion | Failure:
        """An answer; above temperature 0 from a stream of the conversation's own."""
        import torch
        from transformers import GenerationConfig

        try:
            text = self._writer.prompt(conversation)
            read = self._read(text, pictures(conversation, asked.home))
        except RowFault as fault:
            return Failure("unreadable", f"{fault.code} {fault.message}")
        except TemplateFault as error:
            return not_taken(error)
        except NOT_READ as error:
            return not_read(error)
        length = int(read["input_ids"].shape[1])
        room = min(sampling.max_tokens, min(asked.max_length or self.limit, self.limit) - length)
        if room < 1:
            return Failure("too-long", f"the conversation has {length} tokens and leaves no room in the model's")
        heat = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
        how = heat if sampling.temperature > 0 else {"do_sample": False}
        # The model's own generation_config.json may penalise or cut off tokens; Sampling says all that is wanted.
        self.model.generation_config = GenerationConfig(eos_token_id=self._ends or None, pad_token_id=self._pad, **how)
        seed = int.from_bytes(content_digest((sampling.seed, tuple(conversation)))[:7], "big")
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            out = self.model.generate(**read, max_new_tokens=room)
        return self._completion(out[0, length:].tolist(), sampling)

    def _read(self, text: str, images: list[Any]) -> Any:  # Any: libraries' own classes
        read = self.processor(images=images or None, text=[text], return_tensors="pt", add_special_tokens=False)
        return read.to(self.model.device, self.model.dtype)

    def _completion(self, ids: list[int], sampling: Sampling) -> Completion:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        cut = min((text.find(s) for s in sampling.stop if s in text), default=-1)
        ended = cut >= 0 or ids[-1] in self._ends
        return Completion(text[:cut] if cut >= 0 else text, "stop" if ended else "length", len(ids))


_LOADED: dict[tuple[str, str | None, str, str], tuple[str, _Weights]] = held({})
"""By name, revision, type and device: the identity, and the weights."""


def _weights(model: VisionModel) -> _Weights:
    place, identity = (model.location, model.revision, model.dtype, model.device), model.identity()
    with LOADING:  # two threads must not load the same weights twice
        if place not in _LOADED or _LOADED[place][0] != identity:
            _LOADED.pop(place, None)  # weights that changed on disk make room before they are loaded anew
            with loading(model.name):
                name, revision, dtype, device = place
                _LOADED[place] = (
                    identity,
                    _Weights(*load("AutoModelForImageTextToText", name, device, revision, dtype)),
                )
        return _LOADED[place][1]
