"""A trained stage with all that it was made of -> the parts of its card that need no lineage, and the card in its folder.

The stage's own process knows neither the licences of the sources nor what filters threw out, so the driver writes the card
once the stage is committed, and again when an eval has judged the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omr_runtime.export.ancestry import Made, model_text, of_plan, public_path, sources
from omr_runtime.export.card import Facts, hub_licence, sections, table, yaml_word
from omr_runtime.store import State
from omr_runtime.work import write_atomic
from omrlang.leaves import Leaf, leaves
from omrlang.plan import Plan
from omrlang.schema import Eval, Rl, Sft, Spec
from omrlang.types import FolderModel, Fresh, HfData, HfModel, Model, TrainedModel

CARD = "README.md"
LONGEST = 300
"""Letters of a setting that are shown: a system prompt can be pages long."""

NOT_SHOWN = frozenset({"kind", "version", "revision"})


@dataclass(frozen=True, slots=True)
class Judged:
    """What an eval of the model measured."""

    name: str
    metrics: Mapping[str, Any]


def write_card(plan: Plan, state: State, stages: Mapping[str, dict[str, Any]], name: str) -> None:
    """Put the card into the model's folder. ``stages`` are those of the index, by fingerprint."""
    about = Facts(name, of_plan(plan, stages, name), (), (), plan.omr_version)
    text = saved_card(about, judged(plan, stages, name))
    write_atomic(state.model(plan.stage(name).fingerprint) / CARD, text.encode())


def saved_card(about: Facts, evals: Sequence[Judged]) -> str:
    """What is known when the model is saved: all but the curves and the comparisons, which ``omr export card`` has."""
    parts = [
        front(about, evals),
        f"# {about.title}\n\n{summary(about)}",
        *training_sections(about),
        *([f"## Results\n\n{results}"] if (results := _results(evals)) else []),
        *sections(about),
    ]
    return "\n\n".join(parts) + "\n"


def judged(plan: Plan, stages: Mapping[str, dict[str, Any]], name: str) -> list[Judged]:
    """The finished evals of the model that the stage ``name`` trained."""
    return [
        Judged(stage.name, stages[stage.fingerprint].get("metrics", {}))
        for stage in plan.stages
        if judged_model(stage.spec) == name
        and stages.get(stage.fingerprint, {}).get("status") == "done"
    ]


def judged_model(spec: Spec) -> str | None:
    """The training stage whose model an eval judges."""
    model = spec.model if isinstance(spec, Eval) else None
    return model.stage if isinstance(model, TrainedModel) else None


# ---- what the hub reads ------------------------------------------------------------------------------------------


def front(about: Facts, evals: Sequence[Judged]) -> str:
    """The YAML that the hub reads: licence, base model, data, and the measured results as a model index."""
    lines = [
        f"license: {yaml_word(hub_licence(_licences(about)))}",
        "library_name: transformers",
        *_listed("base_model", [source.id for source in _bases(about.made)]),
        *_listed("datasets", _datasets(about.made)),
        f"pipeline_tag: {'image-text-to-text' if _pictured(about.made) else 'text-generation'}",
        *_listed("tags", ["omr", *_methods(about.made)]),
        f"omr_fingerprint: {json.dumps(about.made[-1].fingerprint)}",
    ]
    results = list(_index(evals))
    if results:
        name = json.dumps(about.title, ensure_ascii=False)
        lines.append(f"model-index:\n- name: {name}\n  results:\n" + "\n".join(results))
    return "---\n" + "\n".join(lines) + "\n---"


def _listed(key: str, names: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(names))
    return ["\n".join([f"{key}:", *(f"- {json.dumps(name)}" for name in found)])] if found else []


def _licences(about: Facts) -> list[str | None]:
    """Of the data and of the weights that training started from; made from nothing, these have none."""
    starts = [m.licence for m in _models(about.made) if not isinstance(m.source, Fresh)]
    found = {*about.licences, *starts}
    return sorted(found, key=lambda name: (name is None, name or ""))


def _models(made: Sequence[Made]) -> list[Model]:
    """The declared models that trainings started from."""
    specs = (one.spec for one in made)
    return [s.model for s in specs if isinstance(s, Sft | Rl) and isinstance(s.model, Model)]


def _bases(made: Sequence[Made]) -> list[HfModel]:
    return [m.source for m in _models(made) if isinstance(m.source, HfModel)]


def _datasets(made: Sequence[Made]) -> list[str]:
    places = (source.place for _, source in sources(made))
    return [place.id for place in places if isinstance(place, HfData)]


def _pictured(made: Sequence[Made]) -> bool:
    return any("images" in s.columns or s.place.kind == "synthetic" for _, s in sources(made))


def _methods(made: Sequence[Made]) -> list[str]:
    """How it was trained, in order: ``sft``, ``gspo``."""
    specs = (one.spec for one in made)
    return [
        spec.algorithm.kind if isinstance(spec, Rl) else "sft"
        for spec in specs
        if isinstance(spec, Sft | Rl)
    ]


def _index(evals: Sequence[Judged]) -> Iterator[str]:
    """Accuracies of the evals that judged this model."""
    for one in evals:
        for name, found in (one.metrics.get("by_source") or {one.name: one.metrics}).items():
            if "accuracy" in found:
                shown, value = json.dumps(name), round(100 * found["accuracy"], 2)
                yield (
                    "  - task:\n      type: question-answering\n"
                    f"    dataset:\n      name: {shown}\n      type: {shown}\n"
                    f"    metrics:\n    - type: accuracy\n      value: {value}\n      name: {json.dumps(one.name)}"
                )


# ---- text --------------------------------------------------------------------------------------------------------


def summary(about: Facts) -> str:
    last = about.made[-1]
    return (
        f"The model of the stage `{last.address}`, artifact `{last.fingerprint}`, made by omr {about.version}. The artifact's "
        "name is a fingerprint of the recipe: of every setting and input, here and above, that decides the weights. Every "
        "figure below was counted by its run."
    )


def training_sections(about: Facts) -> list[str]:
    """From what and how it was trained, and what the last step measured."""
    last = about.made[-1]
    return [
        "## Trained\n\n" + "\n".join(_trainings(about.made)),
        f"## Settings of `{last.address}`\n\nThose that decide the weights.\n\n"
        + table([["setting", "value"], *_settings(last)]),
        *([f"## Figures\n\n{table(rows)}"] if len(rows := list(_figures(last))) > 1 else []),
    ]


def _trainings(made: Sequence[Made]) -> Iterator[str]:
    for one in made:
        spec = one.spec
        if isinstance(spec, Sft | Rl):
            how = f" by {spec.algorithm.kind}" if isinstance(spec, Rl) else ""
            steps = one.entry.get("steps_done") or 0
            yield f"- `{one.address}`: {steps:,} steps{how} on `{spec.rows}`, from {_start(spec.model)}, seed {spec.seed}"


def _start(model: Model | TrainedModel) -> str:
    if isinstance(model, TrainedModel):
        return f"the model of `{model.stage}`"
    return f"{model_text(model)}, licence {model.licence or 'unknown'}"


def _settings(made: Made) -> Iterator[list[str]]:
    spec = made.spec
    for leaf in leaves(spec, made.parents, made.revision, as_written=True):
        if leaf.cls == "weights" and leaf.path not in NOT_SHOWN:
            yield [f"`{leaf.path}`", f"`{_shown(leaf, spec)}`"]


def _shown(leaf: Leaf, spec: Spec) -> str:
    text = " ".join(leaf.shown.replace("`", "'").split())
    model = getattr(spec, "model", None)
    source = model.source if isinstance(model, Model) else None
    if isinstance(source, FolderModel) and leaf.value == source.path:
        text = public_path(source.path)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _figures(made: Made) -> Iterator[list[str]]:
    """What the stage counted, and what its validation found at last."""
    yield ["figure", "at the end"]
    metrics = made.entry.get("metrics") or {}
    looks = metrics.get("watch") or [{}]
    last = {f"watch: {name}": value for name, value in looks[-1].items()}
    for name, value in {**metrics, "tokens": made.entry.get("tokens"), **last}.items():
        if isinstance(value, int | float):
            yield [name, f"{value:,}" if isinstance(value, int) else f"{float(value):,.6g}"]


def _results(evals: Sequence[Judged]) -> str:
    rows = [["eval", "questions", "accuracy", "95% interval"]]
    for one in evals:
        it = one.metrics
        if "accuracy" in it:
            span = f"{100 * it['accuracy_lo']:.1f} – {100 * it['accuracy_hi']:.1f}%"
            rows.append([one.name, f"{it['num_questions']:,}", f"{it['accuracy']:.1%}", span])
    return table(rows) if len(rows) > 1 else ""
