"""How much longer the slowest rank of an RL update computes than ranks do on average: rollouts learned where they were drawn, and shared out.

    python benchmarks/balance.py [SIGMA]

Counted, not timed: the model FLOPs of a 7B model's passes over 20 drawn batches. Lengths of responses are log-normal, with SIGMA (0.6)
within a prompt and between prompts, 735 tokens in the middle and 4,096 at most, after prompts of 500.
"""

from __future__ import annotations

import random
import sys
from statistics import fmean
from typing import TypeAlias

from omr_runtime.train.batching import micro_batches
from omr_runtime.train.utilisation import Cost

LAYERS, WIDTH, PARAMETERS = 28, 3_584, 7.6e9
COST = Cost(token=6 * PARAMETERS, pair=12 * LAYERS * WIDTH)
PROMPT, MIDDLE, MOST, BUDGET = 500, 6.6, 4_096, 32_768
BATCHES = 20
SETTINGS = ((8, 64, 8), (8, 128, 8), (8, 32, 16), (64, 512, 8))
"""Ranks, prompts of an update, responses to each."""
Group: TypeAlias = tuple[int, float]
"""Tokens and FLOPs of responses that read their prompt once."""


def main(sigma: float) -> None:
    rng = random.Random(1)
    print(f"{'ranks':>5} {'prompts':>8} {'responses':>10} {'where drawn':>12} {'shared out':>11}")
    for ranks, prompts, responses in SETTINGS:
        batches = [[group(rng, responses, sigma) for _ in range(prompts)] for _ in range(BATCHES)]
        drawn = fmean(slowest([batch[rank::ranks] for rank in range(ranks)]) for batch in batches)
        shared = fmean(slowest(shared_out(batch, ranks)) for batch in batches)
        print(f"{ranks:>5} {prompts:>8} {responses:>10} {drawn:>12.2f} {shared:>11.2f}")


def group(rng: random.Random, responses: int, sigma: float) -> Group:
    middle = rng.gauss(MIDDLE, sigma)
    lengths = [min(MOST, round(rng.lognormvariate(middle, sigma)) + 1) for _ in range(responses)]
    flops = COST.of_text(PROMPT) + sum(COST.of_text(length, PROMPT) for length in lengths)
    return PROMPT + sum(lengths), flops


def shared_out(batch: list[Group], ranks: int) -> list[list[Group]]:
    lengths, costs = [tokens for tokens, _ in batch], [flops for _, flops in batch]
    parts = micro_batches(lengths, costs, BUDGET, ranks)
    return [[batch[i] for one in part for i in one] for part in parts]


def slowest(parts: list[list[Group]]) -> float:
    """The FLOPs of the rank with the most, over the mean of all ranks."""
    totals = [sum(flops for _, flops in part) for part in parts]
    return max(totals) / fmean(totals)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.6)
