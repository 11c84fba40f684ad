"""Which files does an input mean? One file, the files of a folder, or those that fit a pattern, by their names."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re
from pathlib import Path

from tunesift.errors import DataError, RecipeError, printable
from tunesift.files import check_file, container_of, input_container
from tunesift.parquet import check_shards

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PATTERN = re.compile(r"[*?\[]")

ROOM = 2.5
"""Bytes of a run's folder for each byte of text."""
PACKED = 8
"""Bytes of text for each byte of a packed file."""
_PLAIN = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt")


def path_as_text(path: Path) -> str:
    """A path as JSON can say it: bytes that are not UTF-8 become escapes, which `path_of_text` takes back."""
    text = re.sub(r"\\(?=u(?:dc|005c))", r"\\u005c", str(path))
    return re.sub("[\udc80-\udcff]", lambda byte: f"\\u{ord(byte[0]):04x}", text)


def path_of_text(text: str) -> Path:
    """The path that `path_as_text` wrote."""
    return Path(re.sub(r"\\u(005c|dc[89a-f][0-9a-f])", lambda escape: chr(int(escape[1], 16)), text))


def input_files(path: Path) -> tuple[Path, ...]:
    """The files that an input means, in order of their names; raises `DataError` where there are none to read."""
    if path.is_dir():
        files = _of_folder(path)
    elif os.path.lexists(path) or not _PATTERN.search(str(path)):
        _refuse_hub(path)
        files = (path,)
    else:
        files = tuple(sorted(Path(f) for f in glob.glob(str(path), recursive=True) if not os.path.isdir(f)))
        if not files:
            raise DataError(f"E101 {path}: no file fits this pattern; check the path.")
    for file in files:
        check_file(file)
    kinds = sorted({input_container(file) for file in files})
    if len(kinds) > 1:
        said = f"holds files of several kinds ({', '.join(kinds)})"
        raise DataError(f"E116 {path}: {said}; give a pattern that fits one kind, such as {_example(path, kinds[0])}.")
    if kinds == ["parquet"]:
        check_shards(files)
    return files


def _of_folder(folder: Path) -> tuple[Path, ...]:
    if (folder / f"{folder.resolve().name}.py").is_file():
        raise DataError(f"E806 {folder}: holds a script that loads a data set, and no code of a data set is run; give "
                        f"its files, such as {_example(folder, 'jsonl')}.")  # fmt: skip
    try:
        inside = sorted(f for f in folder.iterdir() if f.name[0] not in "._" and not f.is_dir() and _is_ours(f))
    except OSError as error:
        raise DataError(f"E119 {folder}: cannot be read ({error.strerror}); check its permissions.") from error
    if not inside:
        raise DataError(f"E117 {folder}: is a folder without a file of records; give a file, or the folder that holds "
                        "its files.")  # fmt: skip
    return tuple(inside)


def _is_ours(path: Path) -> bool:
    try:
        return bool(container_of(path))
    except DataError:
        return False


def _example(path: Path, kind: str) -> str:
    return str((path if path.is_dir() else path.parent) / f"*.{kind}")


def _refuse_hub(path: Path) -> None:
    text = str(path)
    if os.path.lexists(path):
        return
    if text.startswith("hf:/") or (_HUB_NAME.fullmatch(text) and not path.parent.exists() and not _is_ours(path)):
        raise DataError(f"E806 {path}: there is no such file, and data sets on a hub are not read, nor is their code "
                        "run; download its files, and give their folder.")  # fmt: skip
    if _URL.match(text):
        raise DataError(f"E101 {path}: is an address, and an input is a file on this machine; download it first.")


def names_of(files: tuple[Path, ...]) -> tuple[str, ...]:
    """What messages call the files: their names, or their paths below the folder they share."""
    home = home_of(files)
    return tuple(printable(os.path.relpath(file, home)) for file in files)


def home_of(files: tuple[Path, ...]) -> Path:
    """The folder that holds the files; images lie in it, or below."""
    return Path(os.path.commonpath([os.path.abspath(file.parent) for file in files]))


def home_of_input(path: Path) -> Path:
    """The folder that an input's images lie in; raises `DataError` where there is no input."""
    return home_of(input_files(path))


def input_digest(path: Path) -> str:
    """SHA-256 of an input's bytes, in hexadecimal; of several files, of the list of their names and digests."""
    files = input_files(path)
    if files == (path,):
        return file_digest(path)
    whole, home = hashlib.sha256(), home_of(files)
    for file in files:
        name = os.fsencode(os.path.relpath(file, home))
        whole.update(name + b"\0" + bytes.fromhex(file_digest(file)))
    return whole.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; raises `DataError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"E119 {path}: cannot be read ({error.strerror}); check the file's permissions.") from error


def room_needed(path: Path) -> int:
    """Bytes that a run over this input may need on its disk; a bound, not a measurement."""
    return int(sum(ROOM * (1 if file.suffix in _PLAIN else PACKED) * file.stat().st_size for file in input_files(path)))


def check_apart(input: Path, *written: Path) -> None:
    """Raise `RecipeError` where something is to be written over the input, or among its files."""
    ours = {os.path.realpath(file) for file in input_files(input)}
    for path in written:
        if os.path.realpath(path) in ours:
            raise RecipeError(f"E701 output: {path} is the input itself; write to another file.")
        if _lies_among(input, path):
            raise RecipeError(f"E701 output: {path} lies among the files of the input; write to another folder.")


def _lies_among(input: Path, path: Path) -> bool:
    """Whether a folder or pattern would take in this file, or what is in this folder, if it were there."""
    real = Path(os.path.realpath(path))
    if input.is_dir():
        return real.is_relative_to(os.path.realpath(input))
    if os.path.lexists(input):
        return False
    fixed = list(itertools.takewhile(lambda part: not _PATTERN.search(part), input.parts))
    home = Path(os.path.realpath(Path(*fixed)))
    if len(input.parts) > len(fixed) + 1:
        return real.is_relative_to(home)
    return real.parent == home and real.match(input.name)
