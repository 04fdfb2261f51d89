"""Values of settings become text as a recipe would write it."""

from __future__ import annotations

import json
from typing import assert_never

from omrlang.types import (
    Aggregate,
    All,
    Amount,
    Chains,
    Count,
    Hardware,
    MixAmount,
    Range,
    RowExpr,
    Share,
    Times,
    UpTo,
    Worst,
)


def shown(value: object) -> str:
    """A value as a recipe would write it, near enough to be recognised."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:_}"
        case float():
            return shown_number(value)
        case str():
            return (
                json.dumps(value, ensure_ascii=False)
                if len(value) != len(value.strip()) or " " in value
                else value
            )
        case RowExpr(text=text):
            return text
        case tuple() | list():
            return f"[{', '.join(shown(item) for item in value)}]"
        case Amount(value=number, unit="fraction"):
            return f"{shown_number(number * 100)}%"
        case Amount(value=number, unit=unit):
            return f"{shown_number(number)} {unit}"
        case Range(lo=lo, hi=hi) if lo == hi:
            return shown_number(lo)
        case Range(lo=lo, hi=hi, mid=mid):
            given = [lo, hi] if mid is None else [lo, mid, hi]
            return " .. ".join(map(shown_number, given))
        case _:
            return str(value)


def shown_number(value: float) -> str:
    """``1000000.0`` is ``1_000_000``, ``5e-05`` is ``5e-5``."""
    if value.is_integer() and abs(value) < 1e15:
        return f"{int(value):_}"
    text = f"{value:.6g}"
    return text.replace("e-0", "e-").replace("e+0", "e+")


def shown_amount(amount: MixAmount) -> str:
    """An amount of a mix as a recipe writes it."""
    match amount:
        case All():
            return "all"
        case Count(n=n):
            return f"{n:_}"
        case Share(fraction=fraction):
            return f"{shown_number(fraction * 100)}%"
        case UpTo(n=n):
            return f"up_to({n:_})"
        case Times(k=k):
            return f"times({k})"
        case _:
            assert_never(amount)


def shown_aggregate(aggregate: Aggregate) -> str:
    """What an accuracy is made of.

    >>> shown_aggregate("majority"), shown_aggregate(Worst(by="variant"))
    ('majority', 'worst by variant')
    """
    match aggregate:
        case Worst(by=by):
            return f"worst by {by}"
        case Chains(by=by, loose=loose):
            return f"chains by {by}, {'loose' if loose else 'strict'}"
        case word:
            return word


def shown_hardware(hardware: Hardware) -> str:
    """``32 x a800_80gb``, or the number of processes on a machine without a GPU; a cluster with its address."""
    cluster = hardware.cluster
    where = "" if cluster is None else f"ray({cluster.address or f'env {cluster.address_env}'})"
    if hardware.gpu is not None:
        return f"{hardware.count} x {hardware.gpu.name}{' of ' if where else ''}{where}"
    if cluster is not None:
        return f"{where}, {cluster.engines} workers" if cluster.engines else where
    return f"{hardware.count} processes"
