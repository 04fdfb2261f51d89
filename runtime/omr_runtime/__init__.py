"""The executor: a plan in, artifacts and lineage out."""
