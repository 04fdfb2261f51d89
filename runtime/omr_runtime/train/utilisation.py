"""Packed batches and the seconds of their passes to model FLOP/s, and to the part of the device's peak that they are (MFU).

The convention, which the plan's estimates share (`omrlang/flops.py`): counted is what the mathematics of the training asks for,
whatever computes it (model FLOPs; PaLM, arXiv 2204.02311, appendix B). So a token costs 6 N for the N parameters of layers and
head, 4 N where these are frozen; attention is causal, over the whole of what a token may see, windows or not; a patch of an image goes
through the tower and what joins it to the text. Recomputed activations and passes that give no gradient (old log-probs, a
reference) are time, and no FLOPs. A prompt that a group shares is counted as often as it is read: once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omr_runtime.train.adapters import part_of
from omr_runtime.train.batching import PackedBatch
from omr_runtime.train.segments import Segments
from omrlang.flops import passes_a_parameter, passes_of_attention, passes_of_tower
from omrlang.schema.sft import Training

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHANNELS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of training: of a text token, of each pair of a token and one that it sees, of a patch of an image of ``patch``
    pixels a side."""

    token: float
    pair: float
    image_patch: float = 0.0
    patch: int = 1

    def of(self, batches: Sequence[PackedBatch]) -> float:
        """FLOPs of a forward and a backward pass over each of ``batches``."""
        tokens = sum(batch.num_tokens for batch in batches)
        pairs = sum(pairs_seen(batch.segments) for batch in batches)
        patches = sum(self._patches(batch) for batch in batches)
        return self.token * tokens + self.pair * pairs + self.image_patch * patches

    def of_text(self, num_tokens: int, seen: int = 0) -> float:
        """FLOPs of both passes over a text, which goes on from ``seen`` tokens that were read before."""
        return num_tokens * (self.token + self.pair * (num_tokens / 2 + seen))

    def _patches(self, batch: PackedBatch) -> float:
        pixels = (batch.images or {}).get("pixel_values")
        if pixels is None:
            return 0.0
        if pixels.dim() == 2:  # [patches, pixels of one]
            return float(pixels.shape[0])
        return pixels.numel() / (CHANNELS * self.patch**2)


def pairs_seen(segments: Segments) -> float:
    """Tokens that see a token, over all of both: half of a segment's own, and all of the prompt that it goes on from.

    >>> pairs_seen(Segments((4, 2, 2), ((0, 0), (0, 4), (0, 4))))
    28.0
    """
    ends = zip(segments.lengths, segments.prefixes, strict=True)
    return sum(length * (length / 2 + prefix) for length, (_, prefix) in ends)


def cost_of(model: PreTrainedModel, spec: Training) -> Cost:
    """Of a whole model, with its adapters if it has any, before its weights are cut up."""
    text = model.config.get_text_config()
    counts = dict.fromkeys(
        ("projector", "vision", "embeddings", "head", "language", "adapters"), 0.0
    )
    for name, param in model.named_parameters():
        part = "adapters" if ".lora_" in name else part_of(name)
        # Under ZeRO-3 a parameter that is not needed now is empty, and knows how large it is.
        size = getattr(param, "ds_numel", param.numel())
        counts[part] += size * (_share_of_experts(text) if ".experts." in name else 1.0)
    head = counts["head"] or counts["embeddings"]  # one matrix for both
    passed = passes_a_parameter(spec) * (counts["language"] + head) + 6 * counts["adapters"]
    width = text.num_hidden_layers * text.num_attention_heads * head_width(text)
    tower = 2 * passes_of_tower(spec) * (counts["vision"] + counts["projector"])
    vision = getattr(model.config, "vision_config", None)
    patch = getattr(vision, "patch_size", 1)
    return Cost(passed, 2 * passes_of_attention(spec) * width, tower, patch)


def head_width(text: Any) -> int:
    """Of one attention head."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _share_of_experts(text: Any) -> float:
    """The part of a mixture's experts that a token goes through."""
    number = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None)
    return float(text.num_experts_per_tok / number) if number else 1.0


def speed(
    spec: Training, flops: float, seconds: float, processes: int, on_gpu: bool
) -> dict[str, float]:
    """``tflops``: model TFLOP/s of each process, of the ``flops`` that all did together. On a GPU ``mfu`` beside it: the part
    that they are of the dense bf16 peak that the recipe's hardware declares."""
    tflops = flops / max(seconds, 1e-9) / processes / 1e12
    gpu = spec.hardware.gpu if spec.hardware is not None and on_gpu else None
    return {"tflops": tflops} if gpu is None else {"tflops": tflops, "mfu": tflops / gpu.tflops}
