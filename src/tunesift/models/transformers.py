"""How do local weights chat, predict and embed? Any Hugging Face causal language model, from a folder or by its id."""

from __future__ import annotations

import hashlib
import importlib.resources
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tunesift.errors import MissingExtra, ModelRefused, ModelUnavailable
from tunesift.models.base import Completion, Sampling, Span, TargetLoss
from tunesift.models.likelihood import Segment, SpanEncoder, batches, losses, render
from tunesift.records import Failure, Message, content_digest
from tunesift.settings import INCIDENTAL, Settings

if TYPE_CHECKING:
    import torch

EMBEDDED = "embedded"
"""The name of the scorer that comes with the package."""

_LOG = logging.getLogger(__name__)
_SAMPLED = 64 * 2**10
"""Bytes read at each of a weight file's sampled places, for its identity."""


@dataclass(frozen=True, kw_only=True)
class TransformersModel(Settings):
    """Local weights through transformers: chat, losses and embeddings. Safetensors only, no code from the model."""

    kind: Literal["transformers"] = "transformers"
    name: str = EMBEDDED
    """A folder, a hub id, or "embedded" for the small scorer that comes with tunesift."""
    revision: str | None = None
    """Commit of a hub id; None for its main branch."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights; losses are computed in float32 from them."""
    max_length: int | None = None
    """Most tokens of one text; None for 2,048 or the model's own limit, whichever is smaller."""
    device: Annotated[str, INCIDENTAL] = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    batch_tokens: Annotated[int, INCIDENTAL] = 4096
    """Tokens of one batch, padding included; halved when the device runs out of memory."""

    concurrency: ClassVar[int] = 1

    def identity(self) -> str:
        """Digest of the folder's content; the revision of a hub id."""
        folder = local_folder(self.name)
        return _content(folder) if folder else f"hub:{self.revision or 'main'}"

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        """Losses of the spans, in order; a span that alone exceeds the device's memory is a Failure."""
        weights = _weights(self)
        encode = SpanEncoder(weights.tokenizer, self._limit(weights))
        segments = [encode(span) for span in spans]
        done: list[TargetLoss | Failure | None] = [None] * len(spans)
        for batch in batches(segments, self.batch_tokens):
            for number, loss in zip(batch, weights.losses([segments[n] for n in batch]), strict=True):
                done[number] = loss
        return [loss for loss in done if loss is not None]

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Mean of the last hidden layer over all tokens of each text, BOS included, [hidden size] each."""
        weights = _weights(self)
        limit = self._limit(weights)
        ids = [tuple(weights.tokenizer(t)["input_ids"][:limit]) for t in texts]
        segments = [Segment(i or (weights.pad,), 0, truncated=False) for i in ids]
        return [weights.mean_hidden(segment) for segment in segments]

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        """One completion per conversation, in order; above temperature 0 each has a stream of its own."""
        weights = _weights(self)
        return [weights.complete(conversation, sampling) for conversation in conversations]

    def _limit(self, weights: _Weights) -> int:
        return min(self.max_length or 2048, weights.limit)


class _Weights:
    """A loaded model, its tokenizer, and how its body and head are called."""

    def __init__(self, model: Any, tokenizer: Any, device: torch.device) -> None:  # Any: transformers' own classes
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.limit = int(getattr(model.config.get_text_config(), "max_position_embeddings", 2**31))
        self.pad = int(next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None))
        self.body: Callable[..., Any] = model.base_model
        self._head: Callable[..., Any] = model.get_output_embeddings()
        self._whole = not self._splits()

    def losses(self, segments: list[Segment]) -> list[TargetLoss | Failure]:
        """Losses of one batch; on out-of-memory its halves are tried, down to one span."""
        import torch

        try:
            with torch.inference_mode():
                return list(losses(segments, self._hidden, self._logits))
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(segments) == 1:
            return [Failure("too-long", f"{len(segments[0].ids)} tokens need more memory than {self.device} has")]
        half = len(segments) // 2
        _LOG.warning("out of memory with %d spans; trying %d", len(segments), half)
        return self.losses(segments[:half]) + self.losses(segments[half:])

    def mean_hidden(self, segment: Segment) -> tuple[float, ...]:
        import torch

        with torch.inference_mode():
            ids = torch.tensor([segment.ids], device=self.device)  # [1, T]
            hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state  # [1, T, H]
            return tuple(hidden[0].float().mean(0).tolist())

    def complete(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        import torch

        ids = self.tokenizer(render(conversation, self.tokenizer), add_special_tokens=False, return_tensors="pt")
        start = ids["input_ids"].shape[1]
        options: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            options = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0}
        seed = int.from_bytes(content_digest((sampling.seed, tuple(conversation)))[:7], "big")
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            out = self.model.generate(
                **ids.to(self.device), max_new_tokens=sampling.max_tokens, pad_token_id=self.pad, **options
            )[0, start:]
        return self._completion(out.tolist(), sampling)

    def _completion(self, ids: list[int], sampling: Sampling) -> Completion:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        cut = min((text.find(s) for s in sampling.stop if s in text), default=-1)
        ended = cut >= 0 or len(ids) < sampling.max_tokens or ids[-1:] == [self.tokenizer.eos_token_id]
        return Completion(text[:cut] if cut >= 0 else text, "stop" if ended else "length", len(ids))

    def _hidden(self, segments: list[Segment]) -> torch.Tensor:
        """[B, T, H]; right padding needs no mask, because no causal model looks to the right."""
        import torch

        longest = max(len(s.ids) for s in segments)
        rows = [[*s.ids, *[self.pad] * (longest - len(s.ids))] for s in segments]
        ids = torch.tensor(rows, device=self.device)  # [B, T]
        if self._whole:
            return self.model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]  # [B, T, V]
        return self.body(input_ids=ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

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


def _out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


_LOADING = Lock()


def _weights(model: TransformersModel) -> _Weights:
    with _LOADING:  # two threads must not load the same weights twice
        return _load(model.name, model.revision, model.dtype, model.device)


@cache
def _load(name: str, revision: str | None, dtype: str, device: str) -> _Weights:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra('local models need the "local" extra: pip install "tunesift[local]".') from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    where = torch.device(_device(device))
    place = str(local_folder(name) or name)
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            place, dtype=getattr(torch, dtype), use_safetensors=True, **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(name, error) from error
    return _Weights(model.eval().to(where), tokenizer, where)


def _device(wanted: str) -> str:
    import torch

    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _not_loaded(name: str, error: Exception) -> ModelUnavailable | ModelRefused:
    folder = local_folder(name)
    if folder is None:
        return ModelUnavailable(f'model "{name}" is no folder here and no hub gave it; check the name or the network.')
    if not any(folder.glob("*.safetensors")):
        return ModelRefused(f'model "{name}" has no .safetensors weights; convert it, other formats can run code.')
    return ModelRefused(f'model "{name}" cannot be loaded ({str(error).splitlines()[0][:160]}); check its files.')


def local_folder(name: str) -> Path | None:
    """The folder a name means; None for a hub id. Raises `ModelUnavailable` for a path that is not there."""
    if name == EMBEDDED:
        return Path(str(importlib.resources.files("tunesift") / "assets" / "scorer"))
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelUnavailable(f'model "{name}" is a folder without config.json; give a model\'s folder.')
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelUnavailable(f'model "{name}" is not there; give a folder with config.json or a hub id.')
    return None


def _content(folder: Path) -> str:
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".model", ".jinja", ".txt"))
    return _content_of(tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


@cache
def _content_of(files: tuple[tuple[str, int, int], ...]) -> str:
    """Small files whole; of large ones the size and 64 places, since hashing 100 GB would take minutes."""
    found = hashlib.sha256()
    for name, size, _ in files:
        found.update(f"{Path(name).name}:{size};".encode())
        with Path(name).open("rb") as file:
            step = max(_SAMPLED, size // 64)
            for place in range(0, size, step):
                file.seek(place)
                found.update(file.read(_SAMPLED))
    return found.hexdigest()[:32]
