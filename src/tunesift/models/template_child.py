"""What renders chat templates, in a process of its own: `python -P template_child.py`, one line of JSON for each.

A template comes with a model's folder and is somebody else's code. transformers runs it in a sandbox, which keeps it
from the machine but not from `'a' * 10**10` or a loop without an end: here it has so much time, memory and text, and
what it breaks is this process, which holds no secret and no data but the conversation.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

MOST_TEXT = 4 * 2**20
"""Bytes of a rendered conversation."""
MOST_CPU_S = 2.0
"""Seconds of processor time for one conversation."""
MOST_MEMORY = 512 * 2**20
"""Bytes of memory beside what the process has when it begins."""


def rendered(asked: dict[str, Any], render: Any) -> dict[str, str]:  # Any: JSON; a function of transformers
    """The text, or in one line why there is none."""
    from jinja2 import TemplateError

    try:
        found, _ = render(
            [asked["turns"]], chat_template=asked["template"], add_generation_prompt=asked["open"], **asked["more"]
        )
        if len(found[0].encode(errors="replace")) > MOST_TEXT:
            return {"error": f"it writes more than {MOST_TEXT // 2**20} MB"}
        return {"text": found[0]}
    except MemoryError:
        return {"error": f"it needs more than {MOST_MEMORY // 2**20} MB of memory"}
    except TemplateError as error:
        return {"error": str(error)[:1000]}
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {str(error)[:1000]}"}


def main() -> None:
    """Answer line by line, until there are no more."""
    from transformers.utils.chat_template_utils import render_jinja_template

    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        most = pages * resource.getpagesize() + MOST_MEMORY
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    for line in sys.stdin.buffer:
        # The signal is left to the kernel, which ends the process: no template can catch it or sit in one long call.
        signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)
        said = rendered(json.loads(line), render_jinja_template)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps(said).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
