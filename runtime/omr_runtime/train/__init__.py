"""The training loops: packed batches in, a model out."""
