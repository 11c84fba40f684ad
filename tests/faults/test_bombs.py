"""A file that unpacks to far more than it is ends the reading at the limit, and costs no memory on the way."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MOST = 200
"""Megabytes that a bomb may cost."""
GOOD = {"instruction": "What?", "output": "That."}

CHILD = """
import json, resource, sys
from pathlib import Path
from tunesift import DataError, read_dataset

for name in ("warm.jsonl.gz", "warm.jsonl.zst", "warm.json.gz", "warm.parquet", "image.jsonl"):
    read_dataset(Path(sys.argv[1]) / name)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    source = read_dataset(Path(sys.argv[1]) / sys.argv[2]).source
    said = [b.code for b in source.broken]
except DataError as error:
    said = str(error)[:4]
print(json.dumps([said, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""


def pieces(start: bytes, piece: bytes, end: bytes) -> Iterator[bytes]:
    yield start
    for _ in range(400):
        yield piece
    yield end


SPACES, TEXT = b" " * 2**20, b"x" * (2**20)
ROW = json.dumps({"instruction": "x", "output": "y" * (2**20)}).encode() + b"\n"
BOMBS: dict[str, tuple[bytes, bytes, bytes]] = {
    "line.jsonl": (b'{"instruction": "', TEXT, b'"}'),
    "rows.jsonl": (b"", ROW, b""),
    "array.json": (b"[", SPACES, b"]"),
    "cell.csv": (b'instruction,output\nx,"', TEXT, b'"\n'),
    "rows.csv": (b"instruction,output\n", b"x," + TEXT + b"\n", b""),
}


def warm(folder: Path) -> None:
    row = json.dumps(GOOD).encode()
    (folder / "warm.jsonl.gz").write_bytes(gzip.compress(row))
    (folder / "warm.json.gz").write_bytes(gzip.compress(b"[" + row + b"]"))
    (folder / "warm.jsonl.zst").write_bytes(pa.compress(row, "zstd", asbytes=True))
    pq.write_table(pa.Table.from_pylist([GOOD]), folder / "warm.parquet")
    (folder / "small.png").write_bytes(png(4))
    (folder / "image.jsonl").write_text(json.dumps({**GOOD, "output": "<image>", "images": ["small.png"]}))


def png(side: int) -> bytes:
    """A black square."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, rows = zlib.compressobj(9), bytearray()
    for _ in range(side):
        rows += packer.compress(b"\0" * (side + 1))
    rows += packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", bytes(rows)) + chunk(b"IEND", b"")


def read_in_child(folder: Path, name: str) -> tuple[object, float]:
    """What reading said, and the megabytes by which the process grew at its largest."""
    warm(folder)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), name], capture_output=True, text=True, check=True, timeout=120
    )
    said, extra = json.loads(done.stdout)
    return said, extra


def packed(name: str, folder: Path) -> str:
    parts = pieces(*BOMBS[name.rpartition(".")[0]])
    if name.endswith(".gz"):
        with gzip.open(folder / name, "wb", compresslevel=1) as file:
            file.writelines(parts)
    else:
        with pa.CompressedOutputStream(str(folder / name), "zstd") as stream:
            for part in parts:
                stream.write(part)
    assert (folder / name).stat().st_size < 2 * 2**20
    return name


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{name}.{end}" for name in BOMBS for end in ("gz", "zst")])
def test_a_packed_bomb_is_stopped_at_the_limit(name: str, tmp_path: Path) -> None:
    said, extra = read_in_child(tmp_path, packed(name, tmp_path))
    assert said == ("E401" if name.startswith("cell.csv") else "E404")
    assert extra <= MOST


def plain_text() -> pa.Table:
    return pa.table({"prompt": ["x"], "completion": ["y" * (300 * 2**20)]})


def one_text_in_many_rows() -> pa.Table:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), pa.array(["y" * 2**20]))
    return pa.table({"prompt": [str(n) for n in range(50_000)], "completion": text})


@pytest.mark.slow
@pytest.mark.parametrize("make", [plain_text, one_text_in_many_rows])
def test_a_parquet_bomb_is_stopped_at_the_limit(make: Callable[[], pa.Table], tmp_path: Path) -> None:
    pq.write_table(make(), tmp_path / "bomb.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 2**20
    said, extra = read_in_child(tmp_path, "bomb.parquet")
    assert said == "E404"
    assert extra <= MOST


@pytest.mark.slow
@pytest.mark.parametrize(("side", "code"), [(20_000, ["E405"]), (6_300, [])])
def test_a_large_image_costs_little_memory_whether_it_is_taken_or_not(
    side: int, code: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("PIL", reason='needs the "images" extra')
    (tmp_path / "large.png").write_bytes(png(side))
    rows = [GOOD, {"instruction": "<image>", "output": "y", "images": ["large.png"]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said, extra = read_in_child(tmp_path, "a.jsonl")
    assert said == code
    assert extra <= MOST
