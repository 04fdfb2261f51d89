"""The closed table of units: what a word after a number means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """``name`` is the form in which a value is kept; one of this unit is ``factor`` of the ``base``."""

    name: str
    base: str
    factor: float = 1.0


def _counted(*words: str) -> dict[str, Unit]:
    return {form: Unit(f"{word}s", f"{word}s") for word in words for form in (word, f"{word}s")}


def _scaled(base: str, **factors: float) -> dict[str, Unit]:
    return {word: Unit(word, base, factor) for word, factor in factors.items()}


UNITS: dict[str, Unit] = {
    **_counted(
        "token",
        "row",
        "step",
        "epoch",
        "prompt",
        "pack",
        "pixel",
        "image",
        "sample",
        "parameter",
        "gpu",
    ),
    **_scaled(
        "B",
        B=1,
        KB=1e3,
        MB=1e6,
        GB=1e9,
        TB=1e12,
        KiB=2.0**10,
        MiB=2.0**20,
        GiB=2.0**30,
        TiB=2.0**40,
    ),
    **_scaled("FLOP", GFLOP=1e9, TFLOP=1e12, PFLOP=1e15),
    **_scaled("s", ms=1e-3, s=1, min=60, hour=3600, hours=3600, days=86400, day=86400),
    "usd": Unit("usd", "usd"),
}
"""The closed table of units."""

DENOMINATORS = ("gpu_hour", "gpu", "hour", "node", "row", "step", "image", "Mtoken", "s")
"""What may stand after the `/` of a unit; the grammar's NUMBER has the same list."""
