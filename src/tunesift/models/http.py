"""How does a model behind an OpenAI-compatible endpoint chat, predict and embed?

A server of your own, the embedder of a laptop, a vendor's teacher:

    # vllm serve Qwen/Qwen3-8B
    HttpModel(url="http://localhost:8000/v1", model="Qwen/Qwen3-8B", tokenizer="Qwen/Qwen3-8B")
    # ollama pull nomic-embed-text
    HttpModel(url="http://localhost:11434/v1", model="nomic-embed-text")
    # export VENDOR_KEY=...
    HttpModel(url="https://api.vendor.com/v1", model="large-2026-05-01", key_env="VENDOR_KEY", concurrency=512)

The key itself is read from the environment and stands nowhere else. The number of requests in flight follows what the
endpoint takes (`pace.py`); what becomes of a request that is not answered is decided in `endpoint.py`.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from tunesift.errors import ParameterRefused, RecipeError, shown
from tunesift.image_fields import image_kind
from tunesift.images import image_bytes, plain_bytes
from tunesift.models.base import Completion, Sampling, Span, TargetLoss
from tunesift.models.batches import Batching, office
from tunesift.models.endpoint import PROBE_TOKENS, Call, Endpoint, endpoint
from tunesift.models.exchange import Place
from tunesift.models.faults import Fault
from tunesift.models.folders import segment_of, tokenizer
from tunesift.models.likelihood import Segment, SpanEncoder
from tunesift.models.replies import Reply, choices, completions, echoed, of_prompt, protocol, vectors
from tunesift.models.transport import Way
from tunesift.records import Failure, Message, RowFault
from tunesift.settings import INCIDENTAL, Json, Settings

NOT_GIVEN, NOT_GIVEN_URL = "NOT-GIVEN", "http://not-given.invalid/v1"
"""What stands in a recipe where a model, and its address, are still to be given."""
MOST_TOGETHER = 32
"""Texts of one request for losses or embeddings."""
MOST_IMAGE = 20 * 2**20
"""Bytes of one image file."""

Given = TypeVar("Given")
Made = TypeVar("Made")
Drawn = tuple[Completion, ...]

_IMAGES = ("png", "jpeg", "gif", "webp")
"""Kinds of images that endpoints take."""
_ENCODING = Lock()
"""Tokenizers fail where two threads use one at a time."""
_OURS = ("model", "messages", "prompt", "input", "n", "stream")
"""What a request says for itself and no setting may change."""


@dataclass(frozen=True, kw_only=True)
class HttpModel(Settings):
    """A model behind an OpenAI-compatible endpoint: chat, losses where it gives them, embeddings."""

    kind: Literal["http"] = "http"
    url: Annotated[str, INCIDENTAL]
    """Address of the endpoint, commonly ending in /v1; without a key or a password."""
    model: str = NOT_GIVEN
    """The model's name at the endpoint; where it is not given, a run takes the one that GET url/models lists."""
    key_env: Annotated[str | None, INCIDENTAL] = None
    """Name of the environment variable that holds the key; the key itself is never written down."""
    concurrency: Annotated[int, INCIDENTAL] = 64
    """Most requests in flight at once; begins at 8 and follows what the endpoint takes."""
    timeout_s: Annotated[float, INCIDENTAL] = 120.0
    """Seconds until an attempt must be over, its last byte included."""
    insecure: Annotated[bool, INCIDENTAL] = False
    """Send key and prompts without encryption, also to public addresses."""
    trust_env: Annotated[bool, INCIDENTAL] = False
    """Take proxies (HTTPS_PROXY, NO_PROXY) and certificate authorities (SSL_CERT_FILE) from the environment."""
    stream: Annotated[bool, INCIDENTAL] = False
    """Have chat answers sent piece by piece, for proxies that close what is silent for long; they are read whole."""
    batch: Annotated[Batching | None, INCIDENTAL] = None
    """Send chat requests as files that the provider answers within a day, such as `{chunk: 1000}`; None for at once."""
    pin_served_model: Annotated[bool, INCIDENTAL] = False
    """Stop when an answer says that it comes from a model of another name."""
    parameters: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
    """Added to every request (`top_p`, `reasoning_effort`, `dimensions`); null leaves one of ours out (`seed`)."""
    tokens_name: Annotated[Literal["max_tokens", "max_completion_tokens"], INCIDENTAL] = "max_tokens"
    """What the endpoint calls the most tokens of a chat completion."""
    tokenizer: str | None = None
    """For losses: the folder or hub id of the model's tokenizer, since spans are sent as token numbers."""
    max_length: int | None = None
    """For losses: most tokens of one text; None where the endpoint's own limit makes a longer one a failure."""
    losses: Annotated[Literal["echo", "prompt_logprobs"], INCIDENTAL] = "echo"
    """How the endpoint is asked for a prompt's log-probabilities: OpenAI's `echo`, or vLLM's `prompt_logprobs`."""
    images: Annotated[Path, INCIDENTAL] = Path()
    """The folder that image files are relative to, and that they must be in."""

    def __post_init__(self) -> None:
        _check_url(self.url, self.insecure)
        if self.key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_env):
            raise RecipeError("key_env: is no name of an environment variable in capital letters; write the name, "
                              "never the key itself.")  # fmt: skip
        if self.batch is not None and self.stream:
            raise RecipeError("stream: a batch is not sent piece by piece; leave stream or batch out.")
        for name in ("concurrency", "timeout_s", "max_length"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise RecipeError(f"{name}: {value:g} must be above 0.")
        if taken := [name for name in _OURS if name in self.parameters]:
            raise RecipeError(f"parameters: {taken[0]} is set by the request itself; leave it out.")

    @property
    def is_placed(self) -> bool:
        """Whether its address is given, and no placeholder."""
        return self.url != NOT_GIVEN_URL

    @property
    def is_named(self) -> bool:
        """Whether its name is given, and no placeholder."""
        return self.model != NOT_GIVEN

    @property
    def is_here(self) -> bool:
        """Whether the address is of this machine or of a private network, where nobody sends a bill."""
        host = urlsplit(self.url).hostname or ""
        try:
            return not ipaddress.ip_address(host).is_global
        except ValueError:
            return host == "localhost"

    @property
    def way(self) -> Way:
        """How its address is reached."""
        return Way(self.url, self.timeout_s, self.insecure, self.trust_env)

    @property
    def list_url(self) -> str:
        """Where the models are listed that the endpoint serves."""
        return f"{self.url.rstrip('/')}/models"

    @property
    def name(self) -> str:
        """What plans and reports call the model."""
        return self.model if self.is_named else f"the model at {urlsplit(self.url).netloc}"

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion | Failure]:
        """One completion per conversation, in order; a Failure for what the endpoint refuses or never answers."""
        drawn = self.draws(conversations, sampling, 1)
        return [d if isinstance(d, Failure) else d[0] for d in drawn]

    def draws(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, count: int
    ) -> list[Drawn | Failure]:
        """Several completions for each conversation, drawn in one request."""
        asked = [self._call_or_failure(conversation, sampling, count) for conversation in conversations]
        calls, there = [a for a in asked if isinstance(a, Call)], self._endpoint()
        made = iter(map(there.ask, calls) if self.batch is None else office(there).ask(calls, self.batch))
        return [a if isinstance(a, Failure) else next(made) for a in asked]

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        """Losses of the spans, in order; the next token's log-probabilities are those of targets of one token each.

        Raises `ParameterRefused` where the endpoint gives no log-probabilities of prompts.
        """
        with _ENCODING:
            encode = self._encoder()
            found = [segment_of(encode, span) for span in spans]
        asked = [n for n, s in enumerate(found) if isinstance(s, Segment) and s.start < len(s.ids) > 1]
        segments = [s for n in asked if isinstance(s := found[n], Segment)]
        lost = dict(zip(asked, _together(segments, self._lose), strict=True))
        return [s if isinstance(s, Failure) else lost.get(n, TargetLoss((), s.truncated)) for n, s in enumerate(found)]

    def single_tokens(self, targets: Sequence[str]) -> list[int | None]:
        """The one token that each text is as a target; None for a text of several, or of one that reads otherwise."""
        with _ENCODING:
            encode = self._encoder()
            return [encode.single(target) for target in targets]

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...] | Failure]:
        """The endpoint's vector of each text, in order."""
        return _together(texts, self._embed)

    def served(self) -> tuple[str, ...]:
        """Names of the models that the endpoint lists, whichever of them is meant; raises `ModelError`."""
        return endpoint(Place(self.way, "", self.key_env, 1, pinned=False)).listed()

    def preflight(self) -> None:
        """Ask the endpoint something short, as is done before any work; raises `ModelError`."""
        there = self._endpoint()
        there.prove(self._chat_call([{"role": "user", "content": "Say OK."}], Sampling(), 1), there.turnstile.epoch)

    def _call_or_failure(
        self, conversation: Sequence[Message], sampling: Sampling, count: int
    ) -> Call[Drawn] | Failure:
        try:
            messages = [self._message(message) for message in conversation]
        except Fault as fault:
            return Failure(fault.failure, f"{fault.code} {fault.message}")
        return self._chat_call(messages, sampling, count)

    def _chat_call(self, messages: list[Json], sampling: Sampling, count: int) -> Call[Drawn]:
        common: dict[str, Json] = {"model": self.model, "temperature": sampling.temperature}
        common |= {"stop": list(sampling.stop)} if sampling.stop else {}
        common |= {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
        if sampling.schema is not None:
            form: Json = {"name": "reply", "schema": dict(sampling.schema), "strict": True}
            common["response_format"] = {"type": "json_schema", "json_schema": form}
        if self.stream:
            common |= {"stream": True, "stream_options": {"include_usage": True}}
        several: dict[str, Json] = {"n": count} if count > 1 else {}
        seed: dict[str, Json] = {"seed": sampling.seed} if sampling.temperature > 0 else {}
        probed: dict[str, Json] = {"seed": 0} if seed else {}
        short: list[Json] = [{"role": "user", "content": "Say OK."}]
        return Call(
            "/chat/completions",
            self._with_parameters(
                common | several | seed | {"messages": messages, self.tokens_name: sampling.max_tokens}
            ),
            self._with_parameters(common | probed | {"messages": short, self.tokens_name: PROBE_TOKENS}),
            lambda reply, tokens: completions(reply, count, tokens),
            lambda reply: completions(reply, 1, 0),
            count * sampling.max_tokens,
        )

    def _message(self, message: Message) -> Json:
        if any("\ud800" <= c <= "\udfff" for c in message.text):
            raise Fault("row", "E637", "the text has half of a surrogate pair in it, which cannot be sent")
        if not message.images:
            return {"role": message.role, "content": message.text}
        parts: list[Json] = [{"type": "image_url", "image_url": {"url": self._image(name)}} for name in message.images]
        return {"role": message.role, "content": [*parts, {"type": "text", "text": message.text}]}

    def _image(self, name: str) -> str:
        """An image as a data: URI, as a local model would see it; only files in the folder of images are ever read."""
        try:
            raw = image_bytes(name, self.images, MOST_IMAGE + 1)
            raw = plain_bytes(raw, MOST_IMAGE) if len(raw) <= MOST_IMAGE else raw
        except RowFault as fault:
            raise Fault("row", "E638", fault.message) from None
        kind = image_kind(raw)
        if kind not in _IMAGES or len(raw) > MOST_IMAGE:
            said = f'"{shown(name[:40])}" is no PNG, JPEG, GIF or WebP of at most {MOST_IMAGE // 2**20} MB'
            raise Fault("row", "E638", said)
        return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"

    def _lose(self, segments: Sequence[Segment]) -> list[TargetLoss | Failure] | Failure:
        asked: dict[str, Json] = {"model": self.model, "temperature": 0.0}
        if self.losses == "echo":
            asked |= {"echo": True, "logprobs": 1, "max_tokens": 0}
        else:
            asked |= {"prompt_logprobs": 0, "max_tokens": 1}
        read = echoed if self.losses == "echo" else of_prompt
        return self._endpoint().ask(Call(
            "/completions",
            self._with_parameters(asked | {"prompt": [list(s.ids) for s in segments]}),
            self._with_parameters(asked | {"prompt": [[0, 1]]}),
            lambda reply, _: [
                _target_loss(segment, read(choice, segment.ids))
                for segment, choice in zip(segments, choices(reply, len(segments)), strict=True)
            ],
            lambda reply: self._gives_losses(reply, read),
            len(segments),
        ))  # fmt: skip

    def _gives_losses(self, reply: Reply, read: Callable[[Reply, Sequence[int]], object]) -> None:
        try:
            read(choices(reply, 1)[0], (0, 1))
        except Fault as fault:
            raise Fault("final", "E609", f"it gives no log-probabilities of prompts by way of losses: {self.losses} "
                        f"({fault.message}); use the other way, vLLM, or a transformers model",
                        final=ParameterRefused) from None  # fmt: skip

    def _embed(self, texts: Sequence[str]) -> list[tuple[float, ...]] | Failure:
        there = self._endpoint()

        def read(reply: Reply, _: int) -> list[tuple[float, ...]]:
            found = vectors(reply, len(texts))
            there.width = there.width or len(found[0])
            if len(found[0]) != there.width:
                raise protocol("E628", f"a vector has {len(found[0])} numbers where others had {there.width}")
            return found

        asked: dict[str, Json] = {"model": self.model}
        return there.ask(Call(
            "/embeddings",
            self._with_parameters(asked | {"input": list(texts)}),
            self._with_parameters(asked | {"input": ["OK"]}),
            read,
            lambda reply: vectors(reply, 1),
            0,
        ))  # fmt: skip

    def _with_parameters(self, body: dict[str, Json]) -> dict[str, Json]:
        return {name: value for name, value in (body | dict(self.parameters)).items() if value is not None}

    def _encoder(self) -> SpanEncoder:
        if self.tokenizer is None:
            raise ParameterRefused(f'"{self.model}": losses over http need the model\'s tokenizer; write its folder '
                                   "or hub id as tokenizer, or use a transformers model.")  # fmt: skip
        return SpanEncoder(tokenizer(self.tokenizer), self.max_length or 2**31)

    def _endpoint(self) -> Endpoint:
        if not self.is_named:
            raise RecipeError(f"model: is not given; write model=NAME, as GET {shown(self.list_url)} lists it.")
        return endpoint(Place(self.way, self.model, self.key_env, self.concurrency, self.pin_served_model))


def _together(
    items: Sequence[Given], ask: Callable[[Sequence[Given]], Sequence[Made | Failure] | Failure]
) -> list[Made | Failure]:
    """Ask for several at once; where that fails, for each half, so that one that cannot be done costs no other."""
    if len(items) > MOST_TOGETHER:
        return [*_together(items[:MOST_TOGETHER], ask), *_together(items[MOST_TOGETHER:], ask)]
    found = ask(items) if items else []
    if not isinstance(found, Failure):
        return list(found)
    if len(items) == 1:
        return [found]
    half = len(items) // 2
    return [*_together(items[:half], ask), *_together(items[half:], ask)]


def _target_loss(segment: Segment, found: Sequence[float | None]) -> TargetLoss:
    return TargetLoss(tuple(-p for p in found[segment.start :] if p is not None), segment.truncated)


def _check_url(url: str, insecure: bool) -> None:
    """Refuse an address that is none, that holds a secret, or that would show one to everybody on the way."""
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise RecipeError(
            "url: must hold no user, password or query; write the address alone, and name the key by key_env."
        )
    try:
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        port_is_right = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_right:
        raise RecipeError(f'url: "{shown(url)}" is no address of an endpoint; write one like http://localhost:8000/v1.')
    try:
        public = ipaddress.ip_address(parts.hostname).is_global
    except ValueError:
        return  # a name; where it leads is known, and checked, when a connection is made
    if parts.scheme == "http" and public and not insecure:
        raise RecipeError(f"url: http:// to {parts.hostname} would show key and prompts to everybody on the way; write "
                          "https://, or set insecure: true.")  # fmt: skip
