"""A scripted endpoint on real sockets, in a process of its own; see `server.py` for what it can be told to do."""
