"""A stage's leaves that matter become its fingerprint: the name of its artifact.

Text, names, key order, ``speed`` and ``meta`` settings do not move it; what a stage refers to counts by that stage's
fingerprint; derived amounts count, not the way they were written.
"""

from __future__ import annotations

import hashlib
import json

from omrlang.leaves import Canonical, Parents, leaves
from omrlang.schema import Rl, Sft, Spec
from omrlang.types import SettingClass

LATER: dict[tuple[str, str], Canonical] = {
    ("rl", "behind"): 0,
    ("rl", "oversample"): None,
    ("rl", "unfinished"): None,
}
"""Settings that came after stages were run, with the value that means what a stage without them did: it moves nothing."""


def fingerprint(spec: Spec, parents: Parents, revision: str | None) -> str:
    """32 hexadecimal digits that name the stage's artifact. ``parents`` maps each stage it names to its fingerprint.

    >>> from omrlang.schema import Source
    >>> from omrlang.types import Synthetic
    >>> place = Synthetic(name="shapes", n=3, seed=1)
    >>> one = fingerprint(Source(name="a", seed=7, place=place), {}, None)
    >>> one == fingerprint(Source(name="b", seed=7, place=place, rows=3), {}, None)
    True
    """
    matters = deciding_classes(spec)
    pairs = sorted(
        (leaf.key, leaf.value)
        for leaf in leaves(spec, parents, revision)
        if leaf.cls in matters and LATER.get((spec.kind, leaf.key), ...) != leaf.value
    )
    text = json.dumps(pairs, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def deciding_classes(spec: Spec) -> frozenset[SettingClass]:
    """The classes of settings that move this stage's fingerprint."""
    return frozenset({"rows", "weights"}) if isinstance(spec, Sft | Rl) else frozenset({"rows"})
