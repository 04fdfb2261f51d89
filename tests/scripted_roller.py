"""An engine that is a script: it has no model, and what it draws is made of its prompts, its seeds and its weights. It stands in
the engine's process in tests of what goes between the processes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import torch

from omr_runtime.engines.decode import Ask, Draw, OnSampled, Sampled
from omr_runtime.engines.protocol import EngineDied, Weights
from omr_runtime.errors import RunError


class ScriptedRoller:
    name, version = "a script", "1"

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.weights: list[tuple[str, torch.Tensor]] = []

    def roll(self, asks: Iterable[Ask], draw: Draw, done: OnSampled) -> None:
        """A sample says its prompt, its seed and a sum over the weights; the length limit 13 ends the engine, 14 is
        refused."""
        total = sum(float(tensor.double().sum()) for _, tensor in self.weights)
        for number, ask in enumerate(asks):
            assert ask.inputs is None, "what the trainer's own model is given stays there"
            for sample, seed in enumerate(ask.seeds):
                if draw.max_tokens == 13:
                    raise EngineDied("the script has no more")
                if draw.max_tokens == 14:
                    raise RunError("the script shows no such thing")
                time.sleep(self.pause_s)
                print(f"drew {number}/{sample}", flush=True)
                shown = [image.size[0] for image in ask.images]
                tokens = [*ask.input_ids, seed, *shown]
                done(Sampled(number, sample, tokens, [total] * len(tokens), True))

    def update_weights(self, weights: Weights) -> None:
        self.weights = list(weights)

    def close(self) -> None:
        print("closed", flush=True)


def slow() -> ScriptedRoller:
    return ScriptedRoller(0.05)


def refuses() -> ScriptedRoller:
    raise RunError("this model is not served here")


def breaks() -> ScriptedRoller:
    print("about to break", flush=True)
    raise KeyError("a mistake")


class Forgets(ScriptedRoller):
    """Takes weights one after another and keeps none; its one sample says how much memory its process had at most, in bytes."""

    def roll(self, asks: Iterable[Ask], draw: Draw, done: OnSampled) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        for number, _ in enumerate(asks):
            done(Sampled(number, 0, [peak * 1024], [0.0], True))

    def update_weights(self, weights: Weights) -> None:
        for _, _tensor in weights:
            continue
