"""A setting that differs becomes the reason why it cannot act under these plans, where there is one."""

from __future__ import annotations

from omrlang.changes import Moved
from omrlang.diff.pairs import Pair
from omrlang.schema import Eval, Rl, Sample, Spec
from omrlang.settle import ratio_is_one

CLIPS = ("algorithm.clip", "algorithm.dual_clip")


def why_idle(pair: Pair, moved: Moved) -> str:
    """Empty where the setting acts on either side."""
    if pair.a is None or pair.b is None:
        return ""
    reasons = [_why(stage.spec, moved.path) for stage in (pair.a, pair.b)]
    return reasons[1] if all(reasons) else ""


def _why(spec: Spec, path: str) -> str:
    match spec:
        case Rl() if path in CLIPS and ratio_is_one(spec):
            return "one update for each rollout batch, so the ratio is 1 and nothing is clipped"
        case Rl() if path == "algorithm.kl_estimator" and spec.algorithm.kl == 0:
            return "the divergence has no weight in the loss"
        case Sample() | Eval() if path in ("top_p", "top_k") and spec.temperature == 0:
            return "at temperature 0 only the likeliest token is taken"
        case _:
            return ""
