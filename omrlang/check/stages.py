"""Drafts of stages to the schema's values: clauses, settings, and which columns a stage's rows have."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, get_origin

from omrlang import syntax as s
from omrlang.check.aggregates import check_aggregate, own_aggregates
from omrlang.check.conform import conform
from omrlang.check.context import FAILED, Columns, Context, Failed, Place
from omrlang.check.enough import check_enough
from omrlang.check.expect import check_expect
from omrlang.check.fill import fill, keys_of
from omrlang.check.length import check_length
from omrlang.check.named import row_set_names, rows_of
from omrlang.check.near import check_near
from omrlang.check.products import check_products
from omrlang.check.raw import raw_columns
from omrlang.check.suits import check_suits
from omrlang.check.trained import check_trained
from omrlang.check.values import an
from omrlang.functions import COLUMNS
from omrlang.hir import Provenance, Stage
from omrlang.schema import KINDS, Filter, Spec
from omrlang.scope import Bound, Draft
from omrlang.source import Span
from omrlang.types import Clause, MixPart, Share, construct

ALWAYS = ("id", "parent", "content", "source")
SAMPLED = ("response", "thinking", "final_answer", "sample_index", "num_tokens", "finish")


def make_stage(ctx: Context, draft: Draft) -> Stage | Failed:
    """A stage's value. What it names stands in ``ctx`` already, because stages come in the order of the graph."""
    kind = "source" if draft.kind == "benchmark" else draft.kind
    spec = KINDS[kind]
    ctx.provenance, ctx.unpublished = {}, []
    clauses = _clauses(ctx, draft, spec)
    owner = f"{draft.kind} `{draft.name}`"
    without = ("name", "seed", "benchmark", "unpublished", "own_aggregates")
    values = _settings(ctx, draft, spec, clauses, owner, without)
    values |= {name: value for name, value in clauses.items() if name not in values}
    if not isinstance(values.get("columns"), Failed):
        ctx.rows[draft] = _columns_after(ctx, draft, values)
    if FAILED in values.values() or draft in ctx.refused:
        return FAILED
    if draft.kind == "benchmark":
        values["benchmark"] = True
    if kind == "eval":
        values["own_aggregates"] = own_aggregates(ctx, values)
    row_sets = [draft] if kind == "source" else parents_of(ctx, draft)
    check_aggregate(ctx, values.get("aggregate"), row_sets)
    made: Spec = construct(
        spec, name=draft.name, seed=ctx.seed, unpublished=tuple(ctx.unpublished), **values
    )
    _defaults(ctx, spec, without)
    stage = Stage(draft.span, made, ctx.provenance)
    check_suits(ctx, draft, stage)
    check_trained(ctx, stage, ctx.traits[made.name].text_only)
    check_length(ctx, stage)
    check_expect(ctx, draft, made)
    check_near(ctx, draft, made)
    check_enough(ctx, draft, made)
    _check_decides(ctx, draft, stage)
    if not made.unpublished:
        check_products(ctx, stage)
    return stage


def _check_decides(ctx: Context, draft: Draft, stage: Stage) -> None:
    """A filter says what it drops: by a condition, a cap or near duplicates."""
    spec = stage.spec
    if isinstance(spec, Filter) and not any(map(draft.sets, ("keep", "at_most", "unique"))):
        message = f"filter `{draft.name}` lacks `keep`"
        hint = "keep: what stays; `unique` and `at_most` may stand without it"
        ctx.error("E302", message, draft.span, hint)


def _settings(
    ctx: Context,
    draft: Draft,
    spec: type[Any],
    clauses: dict[str, Any],
    owner: str,
    without: tuple[str, ...],
) -> dict[str, Any]:
    """The settings in the braces; a source's ``columns`` first, because ``where`` looks at them."""
    base = FAILED if draft in ctx.refused else None
    if draft.kind not in ("source", "benchmark"):
        ctx.columns = Columns(None) if draft in ctx.refused else columns_in(ctx, draft)
        rest = {key: slot for key, slot in draft.settings.items() if key != "watch"}
        values = fill(ctx, spec, rest, owner, draft.span, without, "", base)
        return values | _watched(ctx, draft, spec, owner, without)
    ctx.columns = raw_columns(ctx, draft, clauses.get("place"))
    mapped = {key: slot for key, slot in draft.settings.items() if key == "columns"}
    values = fill(ctx, spec, mapped, owner, draft.span, without, "", base)
    ctx.columns = _mapped(ctx.columns, values.get("columns"))
    rest = {key: slot for key, slot in draft.settings.items() if key != "columns"}
    return values | fill(ctx, spec, rest, owner, draft.span, without, "", base)


def _watched(
    ctx: Context, draft: Draft, spec: type[Any], owner: str, without: tuple[str, ...]
) -> dict[str, Any]:
    """The setting `watch`, whose expressions look at other rows than those that are trained on."""
    slots = {key: slot for key, slot in draft.settings.items() if key == "watch"}
    named = slots["watch"].group.get("from") if slots else None
    trained_on = ctx.columns
    if named is not None and named.value is not None:
        ctx.columns = _columns_of(ctx, draft, _row_drafts(ctx, named.value))
    values = fill(ctx, spec, slots, owner, draft.span, without, "", FAILED) if slots else {}
    ctx.columns = trained_on
    return values


def _defaults(ctx: Context, spec: type[Any], without: tuple[str, ...]) -> None:
    for key in keys_of(spec, without):
        if not any(path == key or path.startswith(f"{key}.") for path in ctx.provenance):
            ctx.provenance[key] = Provenance("default", None)


# ---- clauses -----------------------------------------------------------------------------------


def _clauses(ctx: Context, draft: Draft, spec: type[Any]) -> dict[str, Any]:
    """The fields that ``from``, ``with`` and ``on`` fill."""
    fields: dict[str, tuple[str, Any, bool]] = {}
    for name, info in spec.model_fields.items():
        for item in info.metadata:
            if isinstance(item, Clause):
                fields[item.word] = (name, info.annotation, info.is_required())
    values: dict[str, Any] = {}
    for word, bound in draft.clauses.items():
        if word not in fields:
            takes = ", ".join(f"`{field}`" for field in fields)
            message = f"{an(draft.kind)} takes no `{word}`"
            ctx.error("E204", message, draft.clause_spans[word], f"it takes {takes}")
            continue
        name, want, _ = fields[word]
        ctx.path = word
        ctx.provenance[word] = Provenance(bound.layer, bound.expr.span)
        values[name] = _clause(ctx, draft, word, bound, want)
    for word, (name, _, required) in fields.items():
        if required and word not in draft.clauses and draft not in ctx.refused:
            shown = f"{draft.kind} `{draft.name}`"
            values[name] = ctx.error(
                "E303", f"{shown} lacks `{word}`", draft.span, _example(draft.kind)
            )
    return values


def _example(kind: str) -> str:
    return {
        "source": 'such as `source NAME from jsonl("FILE")`',
        "benchmark": 'such as `benchmark NAME from jsonl("FILE")`',
        "mix": "such as `mix NAME from [a: all, b: 500]`",
        "sample": "such as `sample NAME from ROWS with MODEL`",
        "filter": "such as `filter NAME from ROWS`",
        "sft": "such as `sft NAME from ROWS with MODEL`",
        "rl": "such as `rl NAME from ROWS with MODEL`",
        "eval": "such as `eval NAME from [ROWS] with MODEL`",
    }[kind]


def _clause(ctx: Context, draft: Draft, word: str, bound: Bound, want: Any) -> Any:
    if want is str:
        found = rows_of(ctx, bound, word)
        return FAILED if isinstance(found, Failed) else found.name
    if get_origin(want) is tuple:
        return _parts(ctx, draft, word, bound, want)
    return conform(ctx, bound, want, Place(word))


def _parts(ctx: Context, draft: Draft, word: str, bound: Bound, want: Any) -> Any:
    """``from [a, b]`` of an eval, ``from [a: all, b: 20%]`` of a mix; one name of an eval needs no brackets."""
    bound = ctx.follow(bound)
    is_mix = want == tuple[MixPart, ...]
    if is_mix:
        parts = conform(ctx, bound, want, Place(word))
        if parts is FAILED or not _check_amounts(ctx, draft, bound.expr.span, parts):
            return FAILED
        return parts
    return row_set_names(ctx, bound, word)


def _check_amounts(ctx: Context, draft: Draft, span: Span, parts: tuple[MixPart, ...]) -> bool:
    """Shares need a total, sum to 100% and do not go with counts; a part stands once."""
    if not parts:
        ctx.error("E301", "a mix of nothing", span)
        return False
    names = Counter(part.rows for part in parts)
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        ctx.error("E307", f"`{twice}` is in the mix twice", span, "`times(2)` repeats its rows")
        return False
    shares = [part.amount.fraction for part in parts if isinstance(part.amount, Share)]
    if not shares:
        if draft.sets("total"):
            ctx.error(
                "E307",
                "`total` goes with shares, this mix has none",
                draft.settings["total"].key.span,
            )
            return False
        return True
    if len(shares) < len(parts):
        ctx.error("E307", "shares and other amounts do not go together", span)
        return False
    if abs(sum(shares) - 1) > 1e-9:
        total = " + ".join(f"{share * 100:g}%" for share in shares)
        ctx.error("E307", f"the shares sum to {sum(shares) * 100:g}%, not to 100%", span, total)
        return False
    if not draft.sets("total"):
        ctx.error("E307", f"mix `{draft.name}` has shares and lacks `total`", draft.span)
        return False
    return True


# ---- columns -----------------------------------------------------------------------------------


def _mapped(raw: Columns, mapping: Any) -> Columns:
    """What a source's rows have after mapping: what is mapped, or columns of the same name."""
    if isinstance(mapping, dict) and mapping:
        names = {
            name: COLUMNS.get(name, "text")  # `extra.NAME` is kept, and read, as text
            for name, expr in mapping.items()
            if expr is not FAILED
        }
    elif raw.names is not None:
        names = {name: COLUMNS[name] for name in raw.names if name in COLUMNS}
    else:
        return Columns(None)
    return Columns({**{name: COLUMNS[name] for name in ALWAYS}, **names})


def columns_in(ctx: Context, draft: Draft) -> Columns:
    """The columns of the rows that a stage's expressions look at."""
    return _columns_of(ctx, draft, parents_of(ctx, draft))


def _columns_of(ctx: Context, draft: Draft, parents: list[Draft]) -> Columns:
    """The columns of the rows of some stages, with what the stage at hand writes to them itself."""
    names: dict[str, Any] = {}
    for columns in map(ctx.rows.get, parents):
        if columns is None or columns.names is None:
            return Columns(None, what=f"the input of `{draft.name}`")
        names |= columns.names
    if draft.kind in ("rl", "eval", "sample"):
        own = {name: COLUMNS[name] for name in SAMPLED if name not in names}
        return Columns(names | own, what=f"the input of `{draft.name}`", own=frozenset(own))
    return Columns(names, what=f"the input of `{draft.name}`")


def parents_of(ctx: Context, draft: Draft) -> list[Draft]:
    """The drafts whose rows go in, as far as they resolve; reports nothing."""
    bound = draft.clauses.get("from")
    if bound is None or draft.kind in ("source", "benchmark"):
        return []
    return _row_drafts(ctx, bound)


def _row_drafts(ctx: Context, bound: Bound) -> list[Draft]:
    unheard = quiet(ctx)
    bound = unheard.follow(bound)
    exprs = (
        [item.value for item in bound.expr.items]
        if isinstance(bound.expr, s.ListExpr)
        else [bound.expr]
    )
    found = [rows_of(unheard, bound.of(expr), "from") for expr in exprs]
    return [draft for draft in found if isinstance(draft, Draft)]


def quiet(ctx: Context) -> Context:
    """The same context with reports thrown away."""
    return replace(ctx, reporter=type(ctx.reporter)())


def _columns_after(ctx: Context, draft: Draft, values: dict[str, Any]) -> Columns:
    """The columns of the rows that a stage gives."""
    if draft.kind in ("source", "benchmark"):
        return ctx.columns
    columns = ctx.columns
    if draft.kind == "sample" and columns.names is not None:
        names = {**columns.names, **{name: COLUMNS[name] for name in SAMPLED}}
        return Columns(names)
    return Columns(columns.names)
