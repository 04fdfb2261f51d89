"""Rows through the recipe: source counts, shares, ``n`` and pass rates become the rows of every stage, by source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import comb
from typing import assert_never

from omrlang.estimate import assumptions
from omrlang.estimate.ranges import (
    added,
    between,
    derive,
    derive_from,
    exact,
    product,
    setting,
    unknown,
)
from omrlang.pins import Pin
from omrlang.plan import Estimate, Origin
from omrlang.references import nodes
from omrlang.schema import Filter, Mix, Sample, Source
from omrlang.state import Probe, Record
from omrlang.types import All, Call, Count, MixAmount, Model, RowExpr, Scripted, Share, Times, UpTo

EVERY_ROW = exact(1.0, "", "formula", "every row has an image")
NO_ROW = exact(0.0, "", "formula", "no row has an image")


@dataclass(frozen=True, slots=True)
class Flow:
    """Rows that leave a stage. ``question`` and ``response`` are of one row, ``pixels`` of one image, None without images,
    ``pictured`` the share of rows that have one;
    ``per_parent`` rows share one question; ``right`` is the declared share of right answers of a scripted teacher."""

    rows: Estimate
    by_source: Mapping[str, Estimate] = field(default_factory=dict)
    question: Estimate = field(default_factory=lambda: unknown("tokens", "no rows"))
    response: Estimate | None = None
    pixels: Estimate | None = None
    pictured: Estimate = EVERY_ROW
    per_parent: int = 1
    right: float | None = None
    parts: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier runs left: ``same`` for this very stage when it is done, ``earlier`` for its name under other settings,
    ``probe`` of a slice of this very stage."""

    same: Record | None = None
    earlier: Record | None = None
    probe: Probe | None = None


def guess(values: assumptions.Guess, unit: str, formula: str) -> Estimate:
    """A default that nobody set."""
    return between(min(values), values[1], max(values), unit, "assumed", formula)


def measured(flow: Flow, past: Past) -> Flow:
    """With the counts of a finished run in place of the computed ones."""
    record = past.same
    if record is None or record.num_rows is None:
        return flow
    rows = exact(record.num_rows, "rows", "measured", "counted when the stage ran")
    by_source = {
        name: exact(count, "rows", "measured", "counted when the stage ran")
        for name, count in record.rows_by_source.items()
    }
    response = flow.response
    if record.mean_response_tokens is not None:
        response = exact(
            record.mean_response_tokens, "tokens", "measured", "mean over the stage's rows"
        )
    return replace(flow, rows=rows, by_source=by_source or flow.by_source, response=response)


def source_rows(spec: Source, pin: Pin | None, past: Past) -> Estimate:
    """Rows that a source gives: counted, declared or unknown, then those that ``take`` reads and of these ``where`` keeps."""
    rows = _raw_rows(spec, pin)
    if spec.take is not None:
        rows = _smaller(rows, setting(spec.take, "rows", "take"))
    if spec.where is None:
        return rows
    return derive(
        "rows",
        "rows that are read x share for which `where` is true",
        product,
        rows=rows,
        rate=_where_rate(spec, past),
    )


def _smaller(rows: Estimate, limit: Estimate) -> Estimate:
    formula = "the smaller of limit and the rows there are"
    return derive("rows", formula, lambda rows, limit: min(rows, limit), rows=rows, limit=limit)


def _raw_rows(spec: Source, pin: Pin | None) -> Estimate:
    if spec.place.kind == "synthetic":
        return exact(spec.place.n, "rows", "formula", "n of the place")
    if pin is not None and pin.num_rows is not None:
        return exact(pin.num_rows, "rows", "measured", "rows counted in the file")
    if spec.rows is not None:
        return exact(spec.rows, "rows", "declared", "`rows` of the source")
    said = spec.assume.rows
    if said is not None:
        return between(said.lo, said.middle, said.hi, "rows", "declared", "`assume { rows }`")
    why = (
        pin.problem
        if pin is not None and pin.problem
        else "rows cannot be counted without reading; `rows = N` declares them"
    )
    return unknown("rows", why)


def _where_rate(spec: Source, past: Past) -> Estimate:
    return (
        _measured_rate(past)
        or _declared_rate(spec)
        or guess(assumptions.WHERE_RATE, "", "nothing known about `where`")
    )


def _measured_rate(past: Past) -> Estimate | None:
    """Kept over asked in the last run of this name. Rows that ``take`` left unread were not asked."""
    for record, origin in ((past.same, "measured"), (past.earlier, "calibrated")):
        if record is not None and record.num_rows is not None and record.num_dropped is not None:
            asked = record.num_rows + record.num_dropped - record.by_reason.get("take", 0)
            if asked:
                return exact(
                    record.num_rows / asked,
                    "",
                    _origin(origin),
                    f"{record.num_rows:,} of {asked:,} rows were kept",
                )
    return None


def _origin(name: str) -> Origin:
    return "measured" if name == "measured" else "calibrated"


def _declared_rate(spec: Source | Filter | Sample) -> Estimate | None:
    keep = spec.assume.keep
    return (
        None
        if keep is None
        else between(
            keep.lo,
            keep.middle,
            keep.hi,
            "",
            "declared",
            f"`assume {{ keep }}` of `{spec.name}`",
        )
    )


def mix_rows(spec: Mix, parents: Mapping[str, Flow]) -> Flow:
    """The parts' amounts added, before duplicates are dropped."""
    taken: dict[str, Estimate] = {}
    by_source: dict[str, Estimate] = {}
    for part, share in zip(spec.parts, spec.share_rows(), strict=True):
        flow = parents[part.rows]
        rows = _taken(part.amount, flow.rows, share)
        again = sum(name.partition(" (")[0] == part.rows for name in taken)
        taken[f"{part.rows} ({again + 1})" if again else part.rows] = rows
        for name, count in _scaled(flow, rows).items():
            by_source[name] = (
                added("rows", "sum over parts", {"a": by_source[name], "b": count})
                if name in by_source
                else count
            )
    rows = added("rows", "sum of the parts, before duplicates are dropped", taken)
    flows = {name: parents[part.rows] for name, part in zip(taken, spec.parts, strict=True)}
    parts = {part.rows: count for part, count in zip(spec.parts, taken.values(), strict=True)}
    return replace(together(flows, taken), rows=rows, by_source=by_source, parts=parts)


def together(flows: Mapping[str, Flow], rows: Mapping[str, Estimate]) -> Flow:
    """Several row sets as one, of each so many ``rows``."""
    answered = {name: flow.response for name, flow in flows.items() if flow.response is not None}
    return Flow(
        rows=added("rows", "rows of the parts", rows),
        by_source={label: n for flow in flows.values() for label, n in flow.by_source.items()},
        question=_blend({name: flow.question for name, flow in flows.items()}, rows),
        response=_blend(answered, rows) if answered else None,
        pixels=next((flow.pixels for flow in flows.values() if flow.pixels is not None), None),
        pictured=_pictured(flows, rows),
    )


def _pictured(flows: Mapping[str, Flow], rows: Mapping[str, Estimate]) -> Estimate:
    """The share of rows with an image, over parts that have them and parts that have none."""
    shares = {
        name: flow.pictured if flow.pixels is not None else NO_ROW for name, flow in flows.items()
    }
    same = len({share.mid for share in shares.values()}) == 1
    return next(iter(shares.values())) if same else _blend(shares, rows, "")


def _taken(amount: MixAmount, rows: Estimate, share: int) -> Estimate:
    match amount:
        case All():
            return rows
        case Count(n=n):
            return exact(n, "rows", "formula", "the amount in the mix")
        case Share():
            return exact(share, "rows", "formula", "share of `total`")
        case UpTo(n=n):
            return _smaller(rows, setting(n, "rows", f"up_to({n})"))
        case Times(k=k):
            return derive(
                "rows", "rows x times", product, rows=rows, times=setting(k, "", f"times({k})")
            )
        case _:
            assert_never(amount)


def _scaled(flow: Flow, rows: Estimate) -> dict[str, Estimate]:
    """The sources of a part, each by the same share."""
    if not flow.rows.mid or rows.mid is None:
        return dict(flow.by_source)
    share = derive(
        "", "rows taken / rows there are", lambda taken, there: taken / there, falling=["there"],
        taken=exact(rows.mid, "rows", rows.origin, "middle of the rows taken"),
        there=exact(flow.rows.mid, "rows", flow.rows.origin, "middle of the rows there are"),
    )  # fmt: skip
    formula = "the same share of every source"
    return {
        name: derive("rows", formula, product, rows=count, share=share)
        for name, count in flow.by_source.items()
    }


def _blend(
    lengths: Mapping[str, Estimate], rows: Mapping[str, Estimate], unit: str = "tokens"
) -> Estimate:
    """The mean over parts, weighted by their rows where those are known; what is unknown of one part is assumed to be
    as in the others."""
    known = {name: length for name, length in lengths.items() if length.mid is not None}
    if not known:
        return unknown(unit, "no part has a known length")
    if len(lengths) == 1:
        return next(iter(known.values()))
    weights = _weights({name: rows[name] for name in known})

    def mean(**inputs: float) -> float:
        pairs = [(inputs[name], inputs[f"rows of {name}"]) for name in known]
        return sum(length * weight for length, weight in pairs) / sum(weight for _, weight in pairs)

    inputs = {**known, **{f"rows of {name}": weight for name, weight in weights.items()}}
    if len(known) == len(lengths):
        return derive_from(unit, "mean over the parts, by their rows", mean, inputs)
    found = derive_from(unit, "mean over the parts whose length is known", mean, inputs)
    return found.model_copy(update={"origin": "assumed"})


def _weights(rows: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The middles, without their ranges; one each where any is unknown or none has rows."""
    if all(item.mid is not None for item in rows.values()) and any(i.mid for i in rows.values()):
        return {name: exact(i.mid or 0.0, "rows", i.origin, i.formula) for name, i in rows.items()}
    return {name: exact(1.0, "", "assumed", "equal weights") for name in rows}


def sample_rows(spec: Sample, parent: Flow, response: Estimate) -> Flow:
    """``n`` rows for each that is asked, or as many as it takes until enough satisfy the condition."""
    drawn = samples_drawn(spec)
    right = (
        spec.model.source.right
        if isinstance(spec.model, Model) and isinstance(spec.model.source, Scripted)
        else None
    )
    return replace(
        parent,
        rows=_times(parent.rows, drawn),
        by_source={name: _times(count, drawn) for name, count in parent.by_source.items()},
        response=response,
        per_parent=max(1, round(drawn.mid or spec.n)),
        right=right,
        parts={},
    )


def samples_drawn(spec: Sample) -> Estimate:
    """Samples of one question."""
    if spec.until is None:
        return setting(spec.n, "", "n")

    def drawn(rate: float, n: float, enough: float) -> float:
        return expected_until(int(n), rate, int(enough))

    return derive(
        "",
        "expected min(n, samples until enough satisfy `until`)",
        drawn,
        falling=["rate"],
        rate=satisfied(spec),
        n=setting(spec.n, "", "n"),
        enough=setting(spec.until.count, "", "until"),
    )


def saved_samples(spec: Sample, asked: Estimate) -> Estimate | None:
    """Samples that `until` leaves undrawn; None of a stage without it."""
    if spec.until is None:
        return None

    def saved(rows: float, n: float, drawn: float) -> float:
        return rows * (n - drawn)

    return derive(
        "rows",
        "questions x (n - samples drawn of one)",
        saved,
        falling=["drawn"],
        rows=asked,
        n=setting(spec.n, "", "n"),
        drawn=samples_drawn(spec),
    )


def satisfied(spec: Sample) -> Estimate:
    """The share of samples that satisfy `until`: declared, else what a scripted teacher was told, else assumed."""
    assert spec.until is not None, "asked of stages that stop early"
    declared = _declared_rate(spec)
    if declared is not None:
        return declared
    source = spec.model.source if isinstance(spec.model, Model) else None
    if isinstance(source, Scripted) and _asks_answer(spec.until.of):
        return exact(source.right, "", "declared", "`right` of the scripted teacher")
    return guess(
        assumptions.KEEP_RATE,
        "",
        "nothing known of how many satisfy `until`; `assume { keep = … }` declares it",
    )


def expected_until(n: int, rate: float, enough: int) -> float:
    """Mean of min(n, trials until so many succeed): one more trial after m of them if fewer have succeeded yet.

    >>> expected_until(8, 1.0, 4), expected_until(8, 0.0, 4), round(expected_until(8, 0.5, 4), 2)
    (4.0, 8.0, 7.09)
    """
    return float(
        sum(
            comb(m, k) * rate**k * (1 - rate) ** (m - k)
            for m in range(n)
            for k in range(min(enough, m + 1))
        )
    )


def _times(rows: Estimate, drawn: Estimate) -> Estimate:
    if drawn.formula.startswith("`n`"):
        return derive("rows", "rows x n", product, rows=rows, n=drawn)
    return derive("rows", "rows x samples drawn of one", product, rows=rows, drawn=drawn)


def times_n(rows: Estimate, n: int) -> Estimate:
    """Samples or answers of so many rows."""
    return derive("rows", "rows x n", product, rows=rows, n=setting(n, "", "n"))


def keep_rate(spec: Filter, parent: Flow, past: Past) -> Estimate:
    """The share that a filter keeps: from a run, else declared, else what a scripted teacher was told, else assumed."""
    found = _measured_rate(past) or _declared_rate(spec)
    if found is not None:
        return found
    if parent.right is not None and _asks_answer(spec.keep):
        return exact(parent.right, "", "declared", "`right` of the scripted teacher")
    return guess(
        assumptions.KEEP_RATE,
        "",
        "nothing known about the pass rate; `assume { keep = … }` declares it",
    )


def _asks_answer(expr: RowExpr) -> bool:
    return any(
        isinstance(node, Call) and node.fn.startswith("answer_") for node in nodes(expr.tree)
    )


def filter_rows(spec: Filter, parent: Flow, past: Past) -> Flow:
    """Rows that pass, at most so many of one question."""
    rate = keep_rate(spec, parent, past)
    known = _measured_rate(past) is not None
    n = parent.per_parent
    most = None if spec.at_most is None or known else int(spec.at_most.value)
    rows = _kept(parent.rows, rate, n, most)
    by_source = {name: _kept(count, rate, n, most) for name, count in parent.by_source.items()}
    return replace(
        parent,
        rows=rows,
        by_source=by_source,
        per_parent=min(n, int(spec.at_most.value)) if spec.at_most is not None else n,
        parts={},
    )


def _kept(rows: Estimate, rate: Estimate, n: int, most: int | None) -> Estimate:
    """Of so many rows, ``n`` of a question; ``most`` is the cap on those of one question."""
    if most is None:
        return derive("rows", "rows x share kept", product, rows=rows, rate=rate)

    def capped(rows: float, rate: float, n: float, most: float) -> float:
        return rows / n * expected_at_most(int(n), rate, int(most))

    return derive(
        "rows",
        "rows / n x expected min(most, kept of n)",
        capped,
        rows=rows,
        rate=rate,
        n=exact(n, "rows of a question", "formula", "`n` of the samples"),
        most=setting(most, "rows of a question", "at_most"),
    )


def expected_at_most(n: int, rate: float, most: int) -> float:
    """Mean of min(most, Binomial(n, rate)).

    >>> round(expected_at_most(2, 0.7, 1), 2)
    0.91
    """
    return sum(min(k, most) * comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1))
