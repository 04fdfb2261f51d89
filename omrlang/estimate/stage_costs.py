"""What was found of a stage becomes its costs: what was measured goes before what was reckoned; machines are paid by the hour."""

from __future__ import annotations

from omrlang.estimate.compute import gpu_hours
from omrlang.estimate.history import measured_seconds
from omrlang.estimate.ranges import added, derive, dollars, exact, free, product, unknown
from omrlang.estimate.rows import Flow, Past
from omrlang.plan import Costs, Estimate, Money
from omrlang.schema import Spec
from omrlang.types import Hardware

NO_TOKENS = exact(0, "tokens", "formula", "no tokens are written")


def stage_costs(
    spec: Spec,
    before: Past,
    rows_in: Estimate,
    flow: Flow,
    tokens: Estimate,
    parts: dict[str, Estimate],
    extra: dict[str, Estimate],
) -> Costs:
    record = before.same
    seconds = (measured_seconds(record) if record is not None else None) or _summed(parts)
    if record is not None and record.tokens is not None and tokens is not NO_TOKENS:
        tokens = exact(record.tokens, "tokens", "measured", "counted when the stage ran")
    hardware: Hardware | None = getattr(spec, "hardware", None)
    hours = gpu_hours(seconds, hardware)
    return Costs(
        rows_in=rows_in,
        rows_out=flow.rows,
        tokens=tokens,
        seconds=seconds,
        gpu_hours=hours,
        usd=rent(hours, hardware),
        rows_by_source=dict(flow.by_source),
        extra=extra,
    )


def _summed(parts: dict[str, Estimate]) -> Estimate:
    return next(iter(parts.values())) if len(parts) == 1 else added("s", " + ".join(parts), parts)


def rent(hours: Estimate, hardware: Hardware | None) -> Money:
    if hardware is None or hardware.gpu is None:
        return free("no GPU is rented")
    return dollars(
        derive("USD", "GPU-hours x price", product, gpu_hours=hours, price=_price(hardware))
    )


def _price(hardware: Hardware) -> Estimate:
    """Of one device and one hour: the recipe's own, else the dated one of the device."""
    gpu, unit = hardware.gpu, "USD / GPU-hour"
    if hardware.usd_per_gpu_hour is not None:
        return exact(hardware.usd_per_gpu_hour, unit, "declared", f"`price` of `{hardware.name}`")
    if gpu is None or gpu.usd_per_gpu_hour is None:
        return unknown(unit, "no price is declared")
    dated = f", listed {gpu.price_date}" if gpu.price_date else ""
    return exact(gpu.usd_per_gpu_hour, unit, "declared", f"`price` of {gpu.name}{dated}")
