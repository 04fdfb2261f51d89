"""What ``on`` names to machines: declared hardware, or ``ray(…)`` alone, which is every CPU that the cluster has."""

from __future__ import annotations

import re
from typing import Any

from omrlang.check.context import FAILED, Context, Failed
from omrlang.scope import Bound
from omrlang.types import Hardware, construct
from omrlang.types.models import Ray

_ADDRESS = re.compile(r"auto|(ray://)?([A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")


def is_address(text: str) -> bool:
    """Whether a cluster can be looked for there.

    >>> [is_address(text) for text in ("auto", "ray://head:10001", "127.0.0.1:6379", "head", "http://head:1")]
    [True, True, True, False, False]
    """
    return _ADDRESS.fullmatch(text) is not None


def whole_cluster(cluster: Ray) -> Hardware:
    """``on ray("auto")``: how many CPUs that is, only the cluster knows."""
    return construct(Hardware, name="ray", count=cluster.engines or 1, cluster=cluster)


def machines(ctx: Context, bound: Bound, hardware: Hardware) -> Any:
    """The hardware with its cluster checked. Where it counts processes, that is how many workers there are at most."""
    cluster = hardware.cluster
    if cluster is None:
        return hardware
    if isinstance(refused := _refused(ctx, bound, cluster), Failed):
        return refused
    if hardware.gpu is None and cluster.engines is None:
        counted = cluster.model_copy(update={"engines": hardware.count})
        return hardware.model_copy(update={"cluster": counted})
    return hardware


def checked_cluster(ctx: Context, bound: Bound, cluster: Any) -> Any:
    """The machines of a cluster that stands alone."""
    if cluster is FAILED or isinstance(_refused(ctx, bound, cluster), Failed):
        return FAILED
    return whole_cluster(cluster)


def _refused(ctx: Context, bound: Bound, cluster: Ray) -> Failed | None:
    if cluster.address is None or is_address(cluster.address):
        return None
    message = f'no cluster has the address "{cluster.address}"'
    hint = 'addresses are "auto", "HOST:6379", "ray://HOST:10001"'
    found: Failed = ctx.error("E301", message, bound.expr.span, hint)
    return found
