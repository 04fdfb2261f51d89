"""A model's source becomes the numbers of its transformer, where they are declared or follow from its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from omrlang.estimate.towers import MLP_RATIO, tower_of
from omrlang.plan import Origin
from omrlang.schema import Spec
from omrlang.types import Fresh, Matrix, Model, ModelRef, Shape, TrainedModel

MATRICES: tuple[str, ...] = get_args(Matrix)

VOCABULARY_SIZE = {"shapes": 152, "characters": 114}

MOMENTS_FP32, MOMENTS_8BIT = 8.0, 2 * (1 + 4 / 256)
"""Bytes a parameter of Adam's two moments; of 8 bits each, with an fp32 scale for every block of 256."""


def moments_bytes(kept: str) -> float:
    """Of a parameter, by the word that a recipe has for what the moments are kept in."""
    return MOMENTS_8BIT if kept == "blockwise8" else MOMENTS_FP32


def shape_of(model: Model) -> Shape | None:
    """Declared, or computed for a model that is made from its config; None where nobody said.

    >>> shape_of(Model(name="m", source=Fresh(family="qwen2", layers=2, hidden=64, heads=2))).num_params > 90_000
    True
    """
    if model.shape is not None:
        return model.shape
    return _fresh(model.source) if isinstance(model.source, Fresh) else None


def root_model(ref: ModelRef, specs: Mapping[str, Spec]) -> Model | None:
    """The declared model that a chain of training stages starts from."""
    for _ in range(len(specs) + 1):
        if not isinstance(ref, TrainedModel):
            return ref
        following = getattr(specs.get(ref.stage), "model", None)
        if following is None:
            return None
        ref = following
    return None


def _fresh(source: Fresh) -> Shape:
    """The numbers of the model that ``omr_runtime.models.fresh`` builds, to the last parameter."""
    tower = tower_of(source)
    vocab = VOCABULARY_SIZE[source.vocabulary] + tower.more_words
    hidden, wide = source.hidden, MLP_RATIO * source.hidden
    layer = 4 * hidden * hidden + 3 * hidden * wide + tower.small(source)
    vision = tower.params(source)
    return Shape(
        num_params=source.layers * layer + vocab * hidden + hidden + vision,
        layers=source.layers,
        hidden=hidden,
        heads=source.heads,
        kv_heads=source.heads,
        head_dim=hidden // source.heads,
        vocab=vocab,
        intermediate=wide,
        vision_params=vision,
        **tower.cut,
    )


def text_params(shape: Shape) -> float:
    """Parameters that every text token goes through: layers and head, not the embedding (which is a look-up)."""
    idle = shape.layers * (shape.experts - shape.experts_per_token) * _mlp(shape)
    embedding = shape.vocab * shape.hidden * is_untied(shape)
    return max(0.0, shape.num_params - shape.vision_params - idle - embedding)


def layer_params(shape: Shape) -> int:
    """Parameters of the layers by their shape: matrices only, so norms and biases are left out.

    >>> layer_params(Shape(num_params=134_515_008, layers=30, hidden=576, heads=9, kv_heads=3, head_dim=64,
    ...                    vocab=49_152, intermediate=1_536))
    106168320
    """
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    router = shape.hidden * shape.experts
    return shape.layers * (attention + router + max(1, shape.experts) * _mlp(shape))


def is_untied(shape: Shape) -> bool:
    """Whether embedding and head are two matrices: then the layers leave room for both."""
    rest = shape.num_params - shape.vision_params - layer_params(shape)
    return rest > 1.5 * shape.vocab * shape.hidden


def mlp_width(shape: Shape) -> int:
    """How wide the MLP is that one token goes through."""
    return max(1, shape.experts_per_token) * shape.intermediate


def inner_width(shape: Shape) -> int:
    """Numbers that a layer computes for one token: queries, keys, values, their output, gate, up, product, residuals."""
    attention = 2 * shape.heads * shape.head_dim + 2 * shape.kv_heads * shape.head_dim
    return attention + 3 * mlp_width(shape) + 4 * shape.hidden


def adapter_params(shape: Shape, rank: int, targets: Sequence[str] = MATRICES) -> float:
    """Parameters of LoRA (arXiv 2106.09685) of that rank on those matrices of the layers, experts included.

    >>> tiny = Shape(num_params=100_000, layers=2, hidden=64, heads=2, kv_heads=1, head_dim=32, vocab=100, intermediate=192)
    >>> adapter_params(tiny, 4, ["q_proj", "v_proj"]), adapter_params(tiny, 4)
    (1792.0, 9728.0)
    """
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    mlp = (shape.hidden + shape.intermediate) * max(1, shape.experts)
    sides = {
        "q_proj": shape.hidden + q,
        "k_proj": shape.hidden + kv,
        "v_proj": shape.hidden + kv,
        "o_proj": q + shape.hidden,
        "gate_proj": mlp,
        "up_proj": mlp,
        "down_proj": mlp,
    }
    return float(shape.layers * rank * sum(sides[name] for name in targets))


PROJECTOR_SHARE = 0.07
"""Of the parameters in the vision tower and what joins it to the text model, the part of the latter: in Qwen2.5-VL 7B the
merger has 44.6M of 677M (two matrices of its config: 5,120 x 5,120 and 5,120 x 3,584)."""


def part_params(shape: Shape) -> dict[str, float]:
    """Parameters of each part that a recipe may freeze; where embeddings and output layer are one matrix the latter has none."""
    embeddings = float(shape.vocab * shape.hidden)
    head = embeddings * is_untied(shape)
    return {
        "vision": shape.vision_params * (1 - PROJECTOR_SHARE),
        "projector": shape.vision_params * PROJECTOR_SHARE,
        "language": max(0.0, shape.num_params - shape.vision_params - embeddings - head),
        "embeddings": embeddings,
        "head": head,
    }


def whole_frozen(shape: Shape, frozen: Sequence[str]) -> frozenset[str]:
    """The parts that stay as they are: with embeddings and output layer in one matrix, either name is both."""
    tied = {"embeddings", "head"} if not is_untied(shape) else set()
    return frozenset(frozen) | (frozenset(tied) if tied & {*frozen} else frozenset())


def frozen_params(shape: Shape, frozen: Sequence[str]) -> float:
    """Parameters of the parts that are not trained."""
    params = part_params(shape)
    return sum(params[part] for part in sorted(whole_frozen(shape, frozen)))


def origin_of(shape: Shape) -> Origin:
    """What a number is that follows from a shape."""
    return "formula" if shape.verified else "declared"


def _mlp(shape: Shape) -> int:
    """Parameters of one gated MLP, of one expert where there are experts."""
    return 3 * shape.hidden * shape.intermediate


def kv_bytes_per_token(shape: Shape) -> float:
    """Keys and values of all layers in bf16."""
    return 2.0 * 2 * shape.layers * shape.kv_heads * shape.head_dim
