"""What a plan assumes where nothing was measured or declared: every constant with where it comes from.

Each is a (low, middle, high). An estimate that uses one has the origin ``assumed``.
"""

from __future__ import annotations

from typing import TypeAlias

Guess: TypeAlias = tuple[float, float, float]

KEEP_RATE: Guess = (0.1, 0.5, 0.9)
"""Share of rows that a filter keeps; nothing is known about the task."""

WHERE_RATE: Guess = (0.5, 0.9, 1.0)
"""Share of raw rows for which a source's ``where`` is true."""

SPREAD_SHARE: Guess = (0.2, 0.5, 0.8)
"""Share of prompts whose rollouts differ in reward; nothing is known about the task."""

CHARACTERS_PER_TOKEN: Guess = (3.0, 4.0, 5.0)
"""English text under vocabularies of 32k and more."""

JUDGE_INSTRUCTION_TOKENS = 75.0
JUDGE_ANSWER_TOKENS: Guess = (1.0, 2.0, 4.0)
ANSWER_TOKENS: Guess = (1.0, 6.0, 40.0)
"""What a judge is told (283 characters and headings), what it may write, and a final answer without its reasoning."""

TEMPLATE_TOKENS = 12.0
"""Role marks and newlines of a chat template with one user turn."""

QUESTION_TOKENS: Guess = (30.0, 120.0, 600.0)
"""A question with its options, where the data cannot be looked at."""

SHAPES_QUESTION_TOKENS: Guess = (4.0, 4.5, 6.0)
SHAPES_RESPONSE_TOKENS: Guess = (12.0, 14.0, 16.0)
SHAPES_PIXELS = 56.0 * 56.0
"""The drawn puzzles: one short question, a one-line solution, a small picture."""

RESPONSE_SHARE: Guess = (0.1, 0.4, 1.0)
"""Mean response over the longest that is allowed."""

QUESTION_SHARE: Guess = (0.1, 0.5, 1.0)
SOLUTION_SHARE: Guess = (0.1, 0.35, 0.8)
"""Parts of a raw record that are question, and solution and answer where a source maps them."""

IMAGE_PIXELS: Guess = (2e5, 6e5, 2e6)
IMAGE_RATIO = 4 / 3
"""One image, where nothing is declared about its size, and its width over its height."""

PACK_FILL: Guess = (0.9, 0.96, 0.99)
"""Tokens in a pack over its length, first-fit decreasing over a window."""

MFU_SFT: Guess = (0.24, 0.34, 0.40)
MFU_RL: Guess = (0.12, 0.22, 0.32)
MFU_SMALL: Guess = (0.08, 0.15, 0.25)
MFU_EXPERTS: Guess = (0.025, 0.10, 0.17)
MFU_TOWER: Guess = (0.11, 0.28, 0.40)
"""Model FLOPs utilisation, causal convention: packed, from some billions of parameters; RL updates; under a billion; experts;
a vision tower, whose narrow layers wait for memory (13% on an H100, ``benchmarks/gpu.py``; as the text's where images are few).
The ends hold what prime-rl and lmms-engine published: 24% (4B, 16k) to 40%, 12.5% (4B, 16k) to 30% (4B, 64k), 2.9% (30B-A3B)."""

DECODE_BANDWIDTH: Guess = (0.8, 0.7, 0.6)
"""Share of the memory bandwidth that decoding reaches (best first: less makes it slower)."""

DECODE_STEP_S: Guess = (0.001, 0.002, 0.004)
DECODE_MIX = (0.65, 0.5, 0.4)
"""Fixed time of one decoding step, and what prefill and ragged ends leave of the ceiling."""

ENGINE_BYTES = 4e9
"""Of a device: what vLLM keeps for a step's values, CUDA graphs and libraries."""

ENGINE_FIXED: Guess = (1.5e9, 4e9, 8e9)
"""The same with its range, where the memory of such a device is judged."""

PUSH_BYTES_PER_S: Guess = (4e9, 1.5e9, 0.5e9)
"""From a trainer to its engine in another process, through the memory of their machine, of all processes at once. From GPU to GPU
not measured."""

ALL_REDUCE_S: Guess = (1e-5, 2e-5, 5e-5)
"""A sum of one step's hidden states over the devices of an engine."""

CPU_TRAIN_FLOPS: dict[str, Guess] = {"bf16": (7e11, 3.5e11, 1e11), "fp32": (3.2e11, 1.6e11, 5e10)}
"""Two recent cores with AMX: 430 (bf16) and 200 (fp32) tokens a second for 135M parameters; best first."""

CPU_TRAIN_OVERHEAD_S: Guess = (0.03, 0.1, 0.3)
"""A forward and backward pass of a few layers, whatever their width, and the optimiser."""

CPU_DECODE_FLOPS: dict[str, Guess] = {
    "vllm": (2.4e11, 1.2e11, 4e10),
    "transformers": (6e10, 3e10, 1e10),
}
CPU_DECODE_STEP_S: Guess = (0.004, 0.012, 0.04)
"""Two cores: 396 (vLLM) and 109 (transformers) output tokens a second for 135M parameters; best first."""

SCRIPTED_ROWS_PER_S: Guess = (20_000.0, 5_000.0, 500.0)
ROWS_PER_S: Guess = (20_000.0, 5_000.0, 500.0)
PICTURES_PER_S: Guess = (3_000.0, 800.0, 200.0)
RULES_PER_S: Guess = (2_000.0, 500.0, 100.0)
"""Rows through a program: a scripted teacher, reading and mixing, drawing pictures, verifying (2 ms for math-verify)."""

START_S: dict[str, Guess] = {
    "light": (0.3, 1.0, 3.0),
    "torch": (4.0, 8.0, 20.0),
    "vllm": (5.0, 20.0, 60.0),
}
"""A stage's process until its first row: without torch, with it, with vLLM."""

COMPARED_PER_S: Guess = (20_000.0, 5_000.0, 1_000.0)
"""Rows whose texts are hashed and compared for near duplicates; images are hashed at the rate of pictures."""

ENCODED_TEXTS_PER_S: Guess = (20_000.0, 2_000.0, 30.0)
ENCODED_IMAGES_PER_S: Guess = (100.0, 30.0, 3.0)
"""Through an encoder on a few cores: static word vectors at best, a transformer at worst; small to large vision towers."""

HIDDEN: Guess = (0.0, 0.0, 1.0)
"""Of generation and update, whichever is shorter: what is gained where both run on one device at once. Nothing where each keeps
it busy, all of it where the one waits (for its longest rollout) as the other works. On one card not measured."""

SYNC_S: Guess = (0.02, 0.3, 3.0)
"""Weights from the trainer to the engine, one step, up to some ten billion parameters."""

LOGITS_OF_A_CHUNK = 1 << 24
"""Logits that stand in memory at once where the loss is fused."""

LOGIT_BYTES: Guess = (11.0, 15.0, 18.5)
"""Of one logit and what is made of it. Measured: 11 (30B-A3B), 14 (4B) and 17 (0.6B) in prime-rl's supervised rows."""

CHECKPOINTS: Guess = (0.95, 1.0, 1.05)
KEPT: Guess = (0.8, 1.15, 1.5)
LAYER: Guess = (0.5, 1.0, 1.5)
LAYER_AGAIN: Guess = (1.7, 2.3, 2.7)
VISION_WIDTH = 1152
VISION_KEPT: Guess = (8.0, 14.0, 20.0)
"""Numbers held in a pass over numbers counted. Measured with recomputation, from prime-rl's rows of 16k and 64k tokens:
2.0 (30B-A3B), 2.3 (4B) and 2.5 (0.6B) of a layer's inner width beside the checkpoints."""

ZERO_BUCKETS: Guess = (0.5e9, 1e9, 4.5e9)
"""Bytes of DeepSpeed's buckets: 5e8 numbers each by default, several with overlap."""

FRAGMENTS: Guess = (0.0, 0.03, 0.10)
"""Memory that PyTorch's allocator holds and does not use, over what it uses."""

CONTEXT_BYTES: Guess = (0.8e9, 1.2e9, 2.0e9)
CPU_PROCESS_BYTES: Guess = (0.5e9, 0.8e9, 1.3e9)
"""Libraries, kernels and buffers before the model: on a GPU, in a process on a CPU."""

USABLE = 0.94
"""Of a device's memory; the rest is lost to fragments and the driver."""
