"""Stage kinds: one file each, with ``run(work)`` that turns a work order into shards."""
