"""The judges that a stage asks become calls, tokens, time and dollars.

A judge reads its instruction, the question, the true and the given answer and writes one word; each distinct triple is
asked once, so calls are at most what the cascade lets through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from omrlang.estimate import assumptions
from omrlang.estimate.compute import sample_seconds
from omrlang.estimate.ranges import added, derive, exact, product, unknown
from omrlang.estimate.rows import Flow, guess
from omrlang.estimate.shapes import root_model, shape_of
from omrlang.plan import Asked, Estimate
from omrlang.references import calls
from omrlang.schema import Spec
from omrlang.types import Call, Engine, Hardware, Lit, Model, OpenAI
from omrlang.walk import describe

NO_PRICE = "{} is reached by an address and declares no price for a million tokens"


def judge_costs(
    spec: Spec, asked: tuple[Asked, ...], flow: Flow, specs: Mapping[str, Spec]
) -> dict[str, Estimate]:
    """``judge_calls``, ``judge_tokens``, ``judge_seconds`` and ``judge_usd`` of a stage; nothing where no judge is asked."""
    found = list(_each(spec, asked, flow, specs))
    if not found:
        return {}
    return {
        name: added(unit, "sum over judges", {judge: part[name] for judge, part in found})
        for name, unit in (
            ("judge_calls", "calls"),
            ("judge_tokens", "tokens"),
            ("judge_seconds", "s"),
            ("judge_usd", "USD"),
        )
    }


def _each(
    spec: Spec, asked: tuple[Asked, ...], flow: Flow, specs: Mapping[str, Spec]
) -> Iterator[tuple[str, dict[str, Estimate]]]:
    """Each judge by the name that the cascade has for it."""
    judges = {describe(call): call for call in calls(spec) if call.fn == "judge"}
    times = {part.what: part.times for rule in asked for part in rule.parts}
    for name, call in judges.items():
        if name in times and call.model is not None:
            judge, hardware = root_model(call.model, specs), getattr(spec, "hardware", None)
            yield name, _one(call, times[name], flow, judge, hardware)


def _one(
    call: Call, times: Estimate, flow: Flow, judge: Model | None, hardware: Hardware | None
) -> dict[str, Estimate]:
    engine = judge.engine if judge is not None and isinstance(call.model, Model) else None
    number = derive("calls", "at most once for each", product, times=times)
    read = derive("tokens", "calls x prompt", product, calls=number, prompt=_prompt(call, flow))
    word = guess(assumptions.JUDGE_ANSWER_TOKENS, "tokens", "yes or no, and the end of it")
    written = derive("tokens", "calls x answer", product, calls=number, answer=word)
    return {
        "judge_calls": number,
        "judge_tokens": added("tokens", "read + written", {"read": read, "written": written}),
        "judge_seconds": _seconds(judge, engine, hardware, read, written),
        "judge_usd": token_dollars(judge, engine, read, written),
    }


def _prompt(call: Call, flow: Flow) -> Estimate:
    """Tokens that the judge reads for one answer."""
    named = {name: tree.value for name, tree in call.named if isinstance(tree, Lit)}
    answer = guess(assumptions.ANSWER_TOKENS, "tokens", "an answer without its reasoning")
    whole = named.get("sees") == "response" and flow.response is not None
    parts = {
        "instruction": exact(
            assumptions.JUDGE_INSTRUCTION_TOKENS, "tokens", "formula", "what a judge is told"
        ),
        "true_answer": answer,
        "given": flow.response if whole and flow.response is not None else answer,
    }
    if named.get("question") is not False:
        parts["question"] = flow.question
    return added("tokens", " + ".join(parts), parts)


def _seconds(
    judge: Model | None,
    engine: Engine | None,
    hardware: Hardware | None,
    read: Estimate,
    written: Estimate,
) -> Estimate:
    """On the stage's machine by its shape; a server's speed is nobody's to know."""
    if judge is None or isinstance(engine, OpenAI):
        return unknown("s", "the judge is served elsewhere, at a speed that nobody declared")
    kind = engine.kind if engine is not None else "transformers"
    length = exact(assumptions.JUDGE_INSTRUCTION_TOKENS, "tokens", "formula", "of a short call")
    shape = shape_of(judge)
    return sample_seconds(shape, hardware, kind, read, written, length, settings=engine)


def token_dollars(
    model: Model | None, engine: Engine | None, read: Estimate, written: Estimate
) -> Estimate:
    """What a provider takes by the token; nothing of a model that this recipe serves itself."""
    if not isinstance(engine, OpenAI):
        return exact(0.0, "USD", "formula", "served on the stage's own machines")
    name = model.name if model is not None else "the model"
    if engine.price_in is None or engine.price_out is None:
        return unknown("USD", NO_PRICE.format(f"`{name}`"))
    unit = "USD / Mtoken"
    return derive(
        "USD",
        "(read x price_in + written x price_out) / 1M",
        lambda read, price_in, written, price_out: (read * price_in + written * price_out) / 1e6,
        read=read,
        price_in=exact(engine.price_in, unit, "declared", f"`price_in` of `{name}`"),
        written=written,
        price_out=exact(engine.price_out, unit, "declared", f"`price_out` of `{name}`"),
    )
