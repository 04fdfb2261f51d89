"""Generation in process with a transformers model, with images: the engine of a machine without vLLM.

It takes weights that are already loaded, so that a training loop can roll out with the very weights it trains.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import transformers

from omr_runtime.engines.asking import answer
from omr_runtime.engines.decode import Ask, Draw, OnSampled, Until, decode
from omr_runtime.engines.protocol import Done, Request, Weights
from omr_runtime.models import Loaded


class TransformersEngine:
    """``batch`` is how many sequences are decoded at once."""

    name = "transformers"
    version = transformers.__version__

    def __init__(self, loaded: Loaded, batch: int = 64) -> None:
        self.loaded, self.batch = loaded, batch

    def generate(self, requests: Iterable[Request], done: Done) -> None:
        """Generate all samples of all requests; a row that cannot be shown fails its own request only."""
        answer(self.loaded, self.roll, requests, done)

    def roll(
        self, asks: Iterable[Ask], draw: Draw, done: OnSampled, until: Until | None = None
    ) -> None:
        """Draw every sample of every encoded prompt, or until there is enough."""
        decode(self.loaded.model, asks, draw, self.batch, done, until)

    def update_weights(self, weights: Weights) -> None:
        """Copy the given weights over the model's own."""
        assert self.loaded.model is not None, "an engine stands on weights"
        own = self.loaded.model.state_dict()
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(tensor)

    def close(self) -> None:
        """Nothing is held besides the weights, which belong to whoever loaded them."""
