"""What is fuzzed, and what may come out of it: nothing, or one of our errors.

python tests/fuzz/targets.py lines [-max_total_time=60] [CORPUS]     (needs atheris; also: chat, recipe)
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["tunesift"]):
        from tunesift import DataError, RecipeError, load_recipe, read_dataset
else:
    from tunesift import DataError, RecipeError, load_recipe, read_dataset

FOLDER = Path(tempfile.gettempdir()) / f"tunesift-fuzz-{os.getpid()}"


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


def _read(content: bytes) -> str:
    path = _file("a.jsonl", content)
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
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / name
    path.write_bytes(content)
    return path


TARGETS: dict[str, Callable[[bytes], str]] = {"lines": lines, "chat": chat, "recipe": recipe}
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
    corpus = FOLDER / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus)], lambda content: TARGETS[name](bytes(content)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
