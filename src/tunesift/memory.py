"""What of the memory that a process no longer needs goes back to the machine?"""

from __future__ import annotations

import pyarrow as pa


def give_back() -> None:
    """Give freed memory back, by Arrow's allocator and the C library's own, which keep it for what may come."""
    for pool in (pa.default_memory_pool(), pa.system_memory_pool()):
        pool.release_unused()
