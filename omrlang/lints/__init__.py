"""A checked recipe to warnings about training: mistakes of this field, found before anything is spent.

One lint, one file; its first lines say what it finds and where the mistake was seen. Each is asked twice: of the recipe
alone when it is checked, and with the costs when a plan is made, since some numbers are known only then.

A new one is a file here and a line in ``LINTS``, a code whose slug is the file's name, and that code's page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Recipe
from omrlang.lints import (
    apart_without_training,
    cap_below_lengths,
    checkpoints_fill_disk,
    clip_never_acts,
    clip_scale,
    dapo_in_name,
    drops_long_answers,
    eval_too_small,
    few_rollouts,
    identical_samples,
    image_budgets,
    image_over_prompt,
    judge_first,
    judge_without_question,
    judges_itself,
    many_passes,
    order_decides,
    other_models_pass_rate,
    penalty_everywhere,
    prompt_mismatch,
    refill_never_acts,
    reward_without_spread,
    shared_items,
    trained_on_test,
    truncated_traces,
    unequal_algorithms,
    unequal_evals,
    unknown_licence,
    unread_rows,
    warmup_over_run,
    watched_training_rows,
)
from omrlang.lints.places import Graph, warning

if TYPE_CHECKING:
    from omrlang.plan import Costs

LINTS = (
    clip_never_acts,
    clip_scale,
    prompt_mismatch,
    trained_on_test,
    judges_itself,
    shared_items,
    order_decides,
    image_over_prompt,
    image_budgets,
    checkpoints_fill_disk,
    cap_below_lengths,
    judge_without_question,
    unequal_algorithms,
    many_passes,
    unknown_licence,
    unequal_evals,
    few_rollouts,
    warmup_over_run,
    identical_samples,
    reward_without_spread,
    dapo_in_name,
    eval_too_small,
    penalty_everywhere,
    unread_rows,
    other_models_pass_rate,
    truncated_traces,
    judge_first,
    refill_never_acts,
    watched_training_rows,
    apart_without_training,
    drops_long_answers,
)


PLANNED = frozenset(("W110", "W111", "W114", "W118", "W122"))
"""Codes of lints that may need the costs: whether one of these is found is known only to a plan."""


def lint(recipe: Recipe, costs: Mapping[str, Costs] | None = None) -> Iterator[Diagnostic]:
    """What the lints find, all as warnings."""
    graph = Graph(recipe, costs)
    for module in LINTS:
        for found in module.lint(graph):
            if not _is_about_unknown(found):
                yield found


def _is_about_unknown(found: Diagnostic) -> bool:
    """Whether it points at a value that nobody published: what stands in for it is nobody's mistake."""
    spans = (found.span, *(span for span, _ in found.related))
    return any("unpublished" in span.text for span in spans)


def levelled(
    linted: Iterable[Diagnostic], recipe: Recipe, denied: Collection[str] = ()
) -> Iterator[Diagnostic]:
    """Findings at the level that was chosen: allowed ones say nothing, ``denied`` ones are errors."""
    stopped = set()
    for found in linted:
        if found.code in denied:
            yield replace(found, severity="error")
        elif found.code in recipe.allowed:
            stopped.add(found.code)
        else:
            yield found
    yield from _idle(recipe, stopped, denied)


def _idle(recipe: Recipe, stopped: set[str], denied: Collection[str]) -> Iterator[Diagnostic]:
    """Each `allow` of the recipe's own file that had nothing to stop."""
    for code, span in recipe.allowed.items():
        is_known = code.startswith("W1") and code not in PLANNED
        is_own = span.file.path == recipe.path
        if is_known and is_own and code not in stopped and code not in denied:
            yield warning("W128", f"nothing is found here that `allow {code}` would stop", span)
