"""A training stage to the passes that a token pays for: what of the model FLOPs the plan and a run count alike."""

from __future__ import annotations

from omrlang.schema.sft import Training


def passes_a_parameter(spec: Training) -> float:
    """FLOPs of training that a token costs for each parameter of the layers: 2 forward; backward 2 to hand the gradient on
    to what was before and 2 for the gradient of the parameter itself (Kaplan et al., section 2.1: the backward pass is two
    matrix products for each of the forward pass), of which those that are frozen have the first alone, or nothing where
    nothing before them is trained. LoRA's authors measured 25% more tokens a second (arXiv 2106.09685, section 4.2)."""
    if spec.adapter is not None:
        return 4.0
    if "language" not in spec.freeze:
        return 6.0
    return 2.0 if {"vision", "projector", "embeddings"} <= {*spec.freeze} else 4.0


def passes_of_attention(spec: Training) -> float:
    """FLOPs of training that a token costs for each layer, unit of its heads' width and token of its document: forward two
    products of 2 FLOPs with the half of the document that it sees, backward twice as much where a gradient goes through."""
    return 6.0 if passes_a_parameter(spec) > 2 else 2.0


def passes_of_tower(spec: Training) -> float:
    """Forward passes that the vision tower's training costs: backward is two; none of it where the tower is frozen."""
    return 1.0 if spec.adapter is not None or "vision" in spec.freeze else 3.0
