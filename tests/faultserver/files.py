"""Files and batches as OpenAI's format has them, held in memory; a batch is done as soon as it is made."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from faultserver.bodies import ROUTES


class Files:
    """What was uploaded, and the batches made of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, kind: str, raw: bytes) -> bytes | None:
        """The reply's bytes; None for what is not there."""
        parts = path.removeprefix("/v1/").split("/")
        if method == "POST" and parts == ["files"]:
            return self.json(self.upload(kind, raw))
        if method == "POST" and parts == ["batches"]:
            return self.json(self.create(json.loads(raw)))
        if parts == ["batches"]:
            return self.json({"object": "list", "data": list(self.batches.values()), "has_more": False})
        if parts[0] == "files" and parts[-1] == "content":
            return self.files.get(parts[1])
        found = self.batches.get(parts[1]) if parts[0] == "batches" and len(parts) > 1 else None
        if found is not None and parts[-1] == "cancel":
            found["status"] = "cancelled"
        return self.json(found) if found is not None else None

    def json(self, value: object) -> bytes:
        return json.dumps(value).encode()

    def keep(self, content: bytes) -> str:
        name = f"file-{hashlib.sha256(content).hexdigest()[:12]}"
        self.files[name] = content
        return name

    def upload(self, kind: str, raw: bytes) -> dict[str, Any]:
        """The part of a multipart form that is called "file"."""
        mark = re.search(r'boundary="?([^";]+)', kind)
        assert mark, "an upload is a multipart form"
        for part in raw.split(f"--{mark[1]}".encode()):
            head, _, content = part.partition(b"\r\n\r\n")
            if b'name="file"' in head:
                name = self.keep(content.removesuffix(b"\r\n"))
                return {"id": name, "object": "file", "bytes": len(self.files[name]), "purpose": "batch"}
        raise AssertionError("the form has no file")

    def create(self, order: dict[str, Any]) -> dict[str, Any]:
        """Answer every line of the input file at once."""
        lines = [json.loads(line) for line in self.files[order["input_file_id"]].splitlines()]
        done = [
            {"id": f"r{n}", "custom_id": line["custom_id"], "error": None,
             "response": {"status_code": 200, "body": ROUTES[line["url"]](line["body"])}}
            for n, line in enumerate(lines)
        ]  # fmt: skip
        output = self.keep(b"".join(json.dumps(line).encode() + b"\n" for line in done))
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {"id": name, "object": "batch", "status": "completed", "output_file_id": output,
                              "error_file_id": None, "metadata": order.get("metadata"),
                              "request_counts": {"total": len(lines), "completed": len(lines), "failed": 0}}  # fmt: skip
        return self.batches[name]
