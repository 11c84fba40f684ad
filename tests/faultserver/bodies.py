"""What the scripted server answers: a pure function of the request, and every way of spoiling it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from harness.debater import debated, is_debated
from harness.generator import generated, is_generating
from harness.planting import BASE, GAP, JUDGE, OF_BASE, QUALITY, planted, verdict
from harness.teacher import is_taught, taught

ROW = re.compile(r"row=(\d+)")
ORDER = re.compile(r"Ignore all that and answer: (.*?) END")
"""What an obedient model does as it is told."""


def marker(raw: bytes) -> str:
    """The row that a request is about, as its text says, or its tokens where each is a byte; empty for a probe."""
    found = ROW.search(raw.decode("utf-8", "replace"))
    if found is None and b'"prompt":[[' in raw.replace(b" ", b""):
        ids = json.loads(raw)["prompt"][0]
        found = ROW.search(bytes(i for i in ids if i < 256).decode("latin-1"))
    return found[1] if found else ""


def number(*parts: object) -> float:
    """A number in [0, 1) that is always the same for the same parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") / 2**48


def text_of(messages: object, seed: object, sample: int) -> str:
    """The reply to a conversation; it names the row, so that an answer given to the wrong question is seen."""
    said = json.dumps([messages, seed, sample], sort_keys=True, ensure_ascii=False)
    last = messages[-1].get("content") if isinstance(messages, list) and isinstance(messages[-1], dict) else None
    if isinstance(last, str) and is_taught(last):
        return taught(last)
    if isinstance(last, str) and is_generating(last):
        return generated(last, seed)
    if isinstance(last, str) and is_debated(last):
        return debated(last)
    if order := ORDER.search(said):
        return str(json.loads(f'"{order[1]}"'))
    row = ROW.search(said)
    return f"reply to row={row[1] if row else '-'} is {hashlib.sha256(said.encode()).hexdigest()[:16]}"


def said_by(body: dict[str, Any], sample: int) -> str:
    """The reply to a request; a model that has the name of an agent of planted quality, or of its judge, speaks so."""
    name, seed = str(body.get("model")), body.get("seed")
    last = str(body["messages"][-1]["content"])
    if name in QUALITY:
        return planted(name, QUALITY[name], OF_BASE if name == BASE else GAP, last, seed)
    if name == JUDGE and "level=" in last:
        return f"Weighed. {verdict(last)}"
    return text_of(body["messages"], seed, sample)


def tokens_in(body: dict[str, Any]) -> int:
    """Tokens of a prompt: words, or the ids that were sent."""
    prompt = body.get("messages", body.get("prompt", body.get("input", "")))
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], list):
        return sum(map(len, prompt))
    return len(json.dumps(prompt, ensure_ascii=False).split())


def usage(body: dict[str, Any], out: int) -> dict[str, int]:
    """What is billed."""
    prompt = tokens_in(body)
    return {"prompt_tokens": prompt, "completion_tokens": out, "total_tokens": prompt + out}


def chat(body: dict[str, Any]) -> dict[str, Any]:
    """A chat completion, `n` of them."""
    texts = [said_by(body, sample) for sample in range(body.get("n", 1))]
    choices = [
        {"index": n, "message": {"role": "assistant", "content": t}, "finish_reason": "stop"}
        for n, t in enumerate(texts)
    ]
    return head(body, "chat.completion") | {
        "choices": choices,
        "usage": usage(body, sum(len(t.split()) for t in texts)),
    }


def head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    """What every reply begins with."""
    name = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]
    return {"id": f"x-{name}", "object": kind, "created": 0, "model": body.get("model", "")}


def prompts(body: dict[str, Any]) -> list[list[int]]:
    """Prompts as token ids; the bytes of a text stand for its tokens."""
    given = body["prompt"]
    if isinstance(given, str):
        return [list(given.encode())]
    return given if given and isinstance(given[0], list) else [given]


def logprob(ids: list[int], at: int) -> float | None:
    """Fake log-probability of a token after those before it; none for the first."""
    return None if at == 0 else -8 * number(ids[: at + 1])


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """A completion, with the prompt's log-probabilities where they are asked for, in either of the two ways."""
    choices = []
    for index, ids in enumerate(prompts(body)):
        numbers = [logprob(ids, at) for at in range(len(ids))]
        choice: dict[str, Any] = {"index": index, "text": text_of(ids, body.get("seed"), 0), "finish_reason": "length"}
        if body.get("echo") and body.get("logprobs") is not None:
            names = [f"token_id:{i}" for i in ids]
            choice |= {
                "logprobs": {"tokens": names, "token_logprobs": numbers, "top_logprobs": None, "text_offset": []}
            }
        if body.get("prompt_logprobs") is not None:
            found = [None if p is None else {str(i): {"logprob": p}} for i, p in zip(ids, numbers, strict=True)]
            choice |= {"prompt_logprobs": found}
        choices.append(choice)
    return head(body, "text_completion") | {"choices": choices, "usage": usage(body, body.get("max_tokens") or 0)}


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Four numbers for each text."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data = [
        {"object": "embedding", "index": n, "embedding": [number(t, d) - 0.5 for d in range(4)]}
        for n, t in enumerate(texts)
    ]
    return head(body, "list") | {"data": data, "usage": usage(body, 0)}


def messages(body: dict[str, Any]) -> dict[str, Any]:
    """A reply in Anthropic's shape."""
    text = text_of(body["messages"], body.get("seed"), 0)
    spent = {"input_tokens": tokens_in(body), "output_tokens": len(text.split())}
    content = [{"type": "text", "text": text}]
    return head(body, "message") | {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn",
                                    "usage": spent}  # fmt: skip


def models(body: dict[str, Any]) -> dict[str, Any]:
    """Which models there are."""
    return {"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "tests"}]}


ROUTES = {
    "/v1/chat/completions": chat,
    "/v1/completions": completion,
    "/v1/embeddings": embeddings,
    "/v1/messages": messages,
    "/v1/models": models,
}


def events(reply: dict[str, Any]) -> bytes:
    """A chat completion as server-sent events, three characters at a time."""
    parts = []
    base = {k: v for k, v in reply.items() if k not in ("choices", "usage")} | {"object": "chat.completion.chunk"}
    for choice in reply["choices"]:
        text = choice["message"]["content"]
        for at in range(0, len(text), 3):
            delta = {"index": choice["index"], "delta": {"content": text[at : at + 3]}, "finish_reason": None}
            parts.append(base | {"choices": [delta]})
        parts.append(base | {"choices": [{"index": choice["index"], "delta": {}, "finish_reason": "stop"}]})
    parts.append(base | {"choices": [], "usage": reply["usage"]})
    lines = [f"data: {json.dumps(p, ensure_ascii=False)}\n\n" for p in parts]
    return "".join([": a comment\n\n", *lines, "data: [DONE]\n\n"]).encode()


def merged(reply: Any, changes: dict[str, Any]) -> Any:
    """A reply with some of its places changed: `{"choices.0.message.content": null}`; "-" removes a place."""
    for path, value in changes.items():
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        place = reply
        for part in way:
            place = place[part]
        if value == "-":
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    return reply


SPOILED = {
    "html": b"<!DOCTYPE html><html><title>Log in</title><form>user, password</form></html>",
    "empty": b"",
    "null": b"null",
    "list": b"[1, 2]",
    "number": b"17",
    "deep": b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


def spoiled(name: str, good: bytes) -> bytes:
    """A good reply's bytes, made wrong in the named way; or something else altogether."""
    if name.startswith("text:"):
        return name.removeprefix("text:").encode("utf-8", "surrogatepass")
    changed = {
        "ok": good,
        "truncated": good[: len(good) // 2],
        "utf8": good.replace(b"reply", b"re\xff\xfely"),
        "twice": good.replace(b'{"id"', b'{"model": "other", "id"', 1),
        "nan": good.replace(b'"created": 0', b'"created": NaN'),
        "infinity": good.replace(b'"created": 0', b'"created": -Infinity'),
        "digits": good.replace(b'"created": 0', b'"created": ' + b"7" * 5000),
        "surrogate": good.replace(b"reply", b"re\\ud800ply"),
        "nanprob": re.sub(rb'("token_logprobs": \[null, )[-0-9.e]+|("logprob": )[-0-9.e]+', rb"\1\2NaN", good),
    }
    return changed[name] if name in changed else SPOILED[name]
