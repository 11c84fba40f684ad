"""Every Python that a test starts writes down the sentences of our errors that are made in it, for `tests/conftest.py`."""

import json
import os

if os.environ.get("TUNESIFT_ERRORS_MADE"):
    try:
        from tunesift.errors import TunesiftError
    except ImportError:
        pass  # a Python that has no tunesift makes no errors of it
    else:
        plain_init = TunesiftError.__init__

        def noted(error, *sentences):
            """Make an error, and write it down; one write, so that it survives any death."""
            plain_init(error, *sentences)
            if path := os.environ.get("TUNESIFT_ERRORS_MADE"):
                line = json.dumps([type(error).__name__, str(error), len(error.args)]).encode() + b"\n"
                log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.write(log, line)
                os.close(log)

        TunesiftError.__init__ = noted
