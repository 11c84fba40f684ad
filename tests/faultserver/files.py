"""Files and batches as OpenAI's format has them, held in memory.

What a batch comes to is said by the rule that matches the request which makes it: `{"batch": {...}}` with

    "takes": how often it is looked at, or "takes_s": how many seconds, until it has ended
    "status": how it ends: completed (the default), expired, cancelled, failed
    "rows": requests that it answers, in the order of its file; all of them where it does not say
    "silent": requests that it does not mention in any file; those neither answered nor silent are errors
    "error": status and body of those errors; otherwise that the batch expired
    "twice", "unknown": answers that come once more, and answers to nothing
    "mark": only where the first line holds it
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from typing import Any
from urllib.parse import parse_qs

from faultserver.bodies import ROUTES

Plan = dict[str, Any]


class Files:
    """What was uploaded, and the batches made of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Plan] = {}
        self.plans: dict[str, Plan] = {}
        self.looks: dict[str, int] = {}
        self.billed: list[dict[str, int]] = []
        """Usage of what was answered since this was last emptied."""

    def answer(self, method: str, path: str, kind: str, raw: bytes, plan: Plan) -> bytes | None:
        """The reply's bytes; None for what is not there."""
        path, _, query = path.partition("?")
        parts = path.removeprefix("/v1/").split("/")
        if method == "POST" and parts == ["files"]:
            return self.json(self.upload(kind, raw))
        if method == "POST" and parts == ["batches"]:
            return self.json(self.create(json.loads(raw), plan))
        if parts == ["batches"]:
            return self.json(self.listed({name: values[0] for name, values in parse_qs(query).items()}))
        if parts[0] == "files" and parts[-1] == "content":
            return self.files.get(parts[1])
        found = self.batches.get(parts[1]) if parts[0] == "batches" and len(parts) > 1 else None
        if found is not None:
            self.looks[found["id"]] += 1
            self.end(found)
        return self.json(found) if found is not None else None

    def json(self, value: object) -> bytes:
        return json.dumps(value).encode()

    def keep(self, content: bytes) -> str:
        name = f"file-{len(self.files)}-{hashlib.sha256(content).hexdigest()[:12]}"
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

    def listed(self, asked: dict[str, str]) -> dict[str, Any]:
        """A page of all batches, the newest first."""
        found = list(self.batches.values())[::-1]
        for batch in found:
            self.end(batch)
        names = [b["id"] for b in found]
        start = names.index(asked["after"]) + 1 if "after" in asked else 0
        page = found[start : start + int(asked.get("limit", 20))]
        return {"object": "list", "data": page, "has_more": start + len(page) < len(found)}

    def create(self, order: dict[str, Any], plan: Plan) -> dict[str, Any]:
        """A batch that is under way."""
        assert order["input_file_id"] in self.files
        name = f"batch-{len(self.batches)}"
        self.plans[name], self.looks[name] = plan | {"began": time.monotonic()}, 0
        self.batches[name] = {
            "id": name, "object": "batch", "status": "in_progress", "input_file_id": order["input_file_id"],
            "output_file_id": None, "error_file_id": None, "metadata": order.get("metadata"),
            "created_at": len(self.batches), "endpoint": order["endpoint"],
        }  # fmt: skip
        self.end(self.batches[name])
        return self.batches[name]

    def end(self, batch: Plan) -> None:
        """Answer what is to be answered, once the time has come."""
        plan = self.plans[batch["id"]]
        soon = time.monotonic() - plan["began"] < plan.get("takes_s", 0) or self.looks[batch["id"]] < plan.get(
            "takes", 0
        )
        if batch["status"] != "in_progress" or soon:
            return
        batch["status"] = plan.get("status", "completed")
        if batch["status"] == "failed":
            batch["errors"] = {"object": "list", "data": [plan.get("error", {"code": "invalid", "message": "no"})]}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        chosen, silent = plan.get("rows", range(len(lines))), plan.get("silent", [])
        done = [self.done(line) for n, line in enumerate(lines) if n in chosen and n not in silent]
        done += [done[n] for n in plan.get("twice", [])]
        done += [done[0] | {"custom_id": f"{n:032x}"} for n in range(plan.get("unknown", 0))]
        failed = [
            self.failed(line, plan.get("error")) for n, line in enumerate(lines) if n not in chosen and n not in silent
        ]
        for name, found in (("output_file_id", done), ("error_file_id", failed)):
            if found:
                batch[name] = self.keep(b"".join(json.dumps(line).encode() + b"\n" for line in found))

    def done(self, line: Plan) -> Plan:
        body = ROUTES[line["url"]](line["body"])
        self.billed.append(body["usage"])
        return {
            "id": "r",
            "custom_id": line["custom_id"],
            "error": None,
            "response": {"status_code": 200, "body": body},
        }

    def failed(self, line: Plan, error: Plan | None) -> Plan:
        if error is None:
            never = {"code": "batch_expired", "message": "This request could not be executed in time."}
            return {"id": "r", "custom_id": line["custom_id"], "response": None, "error": never}
        return {"id": "r", "custom_id": line["custom_id"], "error": None,
                "response": {"status_code": error["status"], "body": error["body"]}}  # fmt: skip
