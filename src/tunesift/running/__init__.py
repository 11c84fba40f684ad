"""How work is done once and never lost: the run, its journal and its executors."""
