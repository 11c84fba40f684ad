"""What is fuzzed, and what may come out of it: nothing, or one of our errors.

python tests/fuzz/targets.py lines [-max_total_time=60] [CORPUS]     (needs atheris; also: chat, recipe, table, parquet, reply, judge)
"""

from __future__ import annotations

import atexit
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["tunesift"]):
        from tunesift import DataError, Failure, RecipeError, load_recipe, parsing, read_dataset
        from tunesift.models import replies
        from tunesift.models.faults import Fault
else:
    from tunesift import DataError, Failure, RecipeError, load_recipe, parsing, read_dataset
    from tunesift.models import replies
    from tunesift.models.faults import Fault

import pyarrow as pa
import pyarrow.parquet as pq


@cache
def folder() -> Path:
    """Where the files of this process go, for as long as it lives."""
    made = Path(tempfile.mkdtemp(prefix="tunesift-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def lines(content: bytes) -> str:
    """A file of JSON lines, whatever its bytes; every row is read or set aside."""
    return _read(content)


def chat(content: bytes) -> str:
    """A file of three conversations, the second of which is these bytes."""
    good = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}).encode()
    return _read(b"\n".join((good, content.replace(b"\n", b" "), good)))


def recipe(content: bytes) -> str:
    """A recipe, whatever its bytes."""
    path = _file("r.yaml", content)
    try:
        load_recipe(path)
    except RecipeError as error:
        return _sound(str(error), "refused")
    return "loaded"


def table(content: bytes) -> str:
    """A table of cells, whatever its bytes."""
    return _read(content, "a.csv")


def parquet(content: bytes) -> str:
    """A Parquet file, whatever its bytes."""
    return _read(content, "a.parquet")


def reply(content: bytes) -> str:
    """An endpoint's answer, plain and as events: read, or a fault of a known class with a code."""
    came = set()
    for read in (replies.parsed, replies.streamed):
        try:
            found = replies.completions(read(content), 2, 3)
        except Fault as fault:
            came.add("refused" if fault.code.startswith("E") else f"refused without a code: {fault}")
        else:
            assert all(isinstance(completion.text, str) for completion in found)
            came.add("read")
    assert came <= {"read", "refused"}, came
    return " and ".join(sorted(came))


def judge(content: bytes) -> str:
    """A judge's completion: a number on the scale, a text, a verdict, an object, or a failure; never anything else."""
    text, scale = content.decode("utf-8", "replace"), parsing.Scale(1, 10)
    number, pair = parsing.rating(text, scale), parsing.two_ratings(text, scale)
    assert isinstance(number, Failure) or 1 <= number <= 10
    assert isinstance(pair, Failure) or all(1 <= each <= 10 for each in pair)
    assert isinstance(parsing.section(text, "[A]", "[B]"), str | Failure)
    marks = {"[[A]]": "first", "[[B]]": "second", "[[C]]": "tie"}
    assert isinstance(found := parsing.verdict(text, marks), Failure) or found in marks.values()
    assert isinstance(parsing.json_value(text, ("score",)), dict | Failure)
    return "unreadable" if isinstance(number, Failure) else "rated"


def _read(content: bytes, name: str = "a.jsonl") -> str:
    path = _file(name, content)
    try:
        data = read_dataset(path)
    except DataError as error:
        return _sound(str(error), "refused")
    assert data.source is not None
    assert data.source.rows == len(data) + len(data.source.broken), "a row was lost in silence"
    for record in data:
        assert record.messages
    for broken in data.source.broken:
        _sound(broken.message, "")
    return "read with broken rows" if data.source.broken else "read"


def _sound(said: str, what: str) -> str:
    assert all(line.isprintable() and len(line) <= 400 for line in said.split("\n")), said
    return what


def _file(name: str, content: bytes) -> Path:
    path = folder() / name
    path.write_bytes(content)
    return path


TARGETS: dict[str, Callable[[bytes], str]] = {
    "lines": lines, "chat": chat, "recipe": recipe, "table": table, "parquet": parquet, "reply": reply, "judge": judge,
}  # fmt: skip
MOST_S = {"lines": 1.0, "chat": 1.0, "recipe": 1.0, "table": 1.0, "parquet": 2.0, "reply": 0.1, "judge": 0.1}
"""Seconds of processor time that one input of a few kilobytes may take; files are written, read and mapped besides."""


def timed(name: str, content: bytes) -> str:
    """What came of an input; raises `AssertionError` where it took too long."""
    began = time.process_time()
    came = TARGETS[name](content)
    took = time.process_time() - began
    assert took <= MOST_S[name], f"{took:.2f} seconds of processor time"
    return came


def _parquet(columns: dict[str, list[object]]) -> bytes:
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), stream, write_page_checksum=True)
    return bytes(stream.getvalue())


def _events(*said: object) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in said) + b"data: [DONE]\n\n"


_CHOICES = [
    {"index": n, "message": {"role": "assistant", "content": f"said {n}"}, "finish_reason": "stop"} for n in (0, 1)
]
_DELTAS = [{"choices": [{"index": n, "delta": {"content": "a"}, "finish_reason": "stop"}]} for n in (0, 1)]
_USER, _ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
SEEDS: dict[str, list[bytes]] = {
    "lines": [
        b'{"instruction": "a", "input": "", "output": "b"}\n{"instruction": "c", "output": "d", "id": 7}\n',
        b'{"prompt": "a", "completion": "b", "x": [1, {"y": null}]}\n\n{"prompt": "\\ud83d\\ude00", "completion": "b"}\n',
        b'\xef\xbb\xbf{"prompt": "a", "completion": "b"}\r\n{"prompt": "a", "completion": 1e999}\r\n',
        b'{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}\n{"a": NaN}\n{"a": 1} x\n',
        b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "prompt": "b"}\n' + b"[" * 70 + b"]" * 70,
    ],
    "chat": [
        json.dumps({"messages": [_USER, _ASSISTANT]}).encode(),
        json.dumps({"messages": [{"role": "system", "content": "s"}, _USER, _ASSISTANT, _USER, _ASSISTANT]}).encode(),
        json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, _ASSISTANT]}).encode(),
        json.dumps(
            {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}, _ASSISTANT]}
        ).encode(),
        json.dumps({"messages": [{"role": "narrator", "content": None}, _USER]}).encode(),
    ],
    "table": [
        b'instruction,input,output\r\nSay a.,,a\r\n"Say, b","x\ny","b ""quoted"""\r\n',
        b"\xef\xbb\xbfprompt,completion\na,b\n'=1+1,'@x\n\nc,d,e\n",
        b"prompt;completion\na;b\n",
        b'prompt,completion\na,"never closed\nb,c\n',
        b"prompt,completion\ra,b\rc,d\n",
    ],
    "parquet": [
        _parquet({"instruction": ["a", "b"], "output": ["c", "d"]}),
        _parquet({"prompt": ["a"] * 50, "completion": ["b"] * 50, "x": [{"y": [1]}] * 50}),
        _parquet({"messages": [[_USER, _ASSISTANT]]}),
        b"PAR1PAR1",
        _parquet({"prompt": ["a"], "completion": ["b"]}).replace(b"completion", b"compl\xdftion"),
    ],
    "reply": [
        json.dumps({"id": "x", "model": "m", "choices": _CHOICES, "usage": {"prompt_tokens": 1}}).encode(),
        json.dumps({"choices": [_CHOICES[1], _CHOICES[0]]}).encode(),
        json.dumps({"choices": [{**_CHOICES[0], "message": {"content": None, "tool_calls": []}}]}).encode(),
        json.dumps({"error": {"message": "too long", "code": "context_length_exceeded"}}).encode(),
        b'{"choices": [{"index": 0, "logprobs": {"token_logprobs": [NaN]}}]}',
        b"<html>log in</html>",
        _events(*_DELTAS),
        b": a comment\n\n" + _events(_DELTAS[0], {"error": {"message": "gone"}}),
    ],
    "judge": [
        b"Rating: 7/10",
        b"<think>9?</think> **Score**: 7.5",
        b"8 6\nThe first is better. [[A]]",
        b"[A] one [B] two",
        b'```json\n{"score": 3, "why": "a",}\n```',
        b"[[C]] " + b"{" * 30,
        b"rating " + b"1 of " * 40,
    ],
    "recipe": [
        b"output: out.jsonl\ninput: in.jsonl\nmethod: {kind: select, keep: {kind: largest, fraction: 0.5}}\n",
        b"output: o.json\nmethod:\n  kind: score\n  scorers:\n    - {kind: ifd, student: {kind: scripted}}\nseed: 3\n",
        b'output: "a\\x41"\nmethod: {kind: cherry}\nexecution: {kind: local, chunk: 4}\nlimit: 10\n# x\n',
        b"output: x\nmethod: &a {kind: select}\nfolder: *a\n<<: {seed: !!python/name:os.system }\nseed: 0o7\n",
    ],
}


def main() -> None:
    """Fuzz one target with atheris, from the seeds or from the corpus given."""
    name = sys.argv.pop(1)
    corpus = folder() / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus)], lambda content: timed(name, bytes(content)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
