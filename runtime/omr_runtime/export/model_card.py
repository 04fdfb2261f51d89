"""A trained model -> its card: what it was trained from and on, what the data went through, and what it scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from omr_runtime.errors import RunError
from omr_runtime.export.ancestry import Made, ancestry, model_text, sources
from omr_runtime.export.card import Facts as CardFacts
from omr_runtime.export.card import hub_licence, sections
from omr_runtime.report.facts import Facts, gather
from omr_runtime.report.markdown import markdown
from omr_runtime.report.ran import Ran, of_stage
from omr_runtime.store import State
from omrlang.schema import Eval, Rl, Sft
from omrlang.types import HfModel, Model, TrainedModel


def model_card(state: State, stage: str, version: str, title: str | None = None) -> str:
    """``README.md`` for the model that a stage trained. RunError where the stage trains none or is not finished."""
    made = ancestry(state, stage)
    last = made[-1]
    if not isinstance(last.spec, Sft | Rl):
        raise RunError(f"{last.address} trains no model; `omr export dataset` has a card for rows")
    ran = of_stage(state, last.fingerprint)
    facts = gather(ran)
    about = CardFacts(title or last.name, made, (), (), version)
    parts = [
        front(about, facts),
        f"# {about.title}\n\n{_summary(about)}",
        "## Trained\n\n" + "\n".join(_trainings(made)),
        *sections(about),
        markdown(facts).strip(),
    ]
    return "\n\n".join(parts) + "\n"


def front(about: CardFacts, facts: Facts) -> str:
    """The YAML that the hub reads: licence of the data, base model, and the measured results as a model index."""
    lines = [f"license: {hub_licence(about.licences)}"]
    bases = list(dict.fromkeys(_bases(about.made)))
    if bases:
        lines.append("base_model:\n" + "\n".join(f"- {json.dumps(name)}" for name in bases))
    pictured = any(
        "images" in s.columns or s.place.kind == "synthetic" for _, s in sources(about.made)
    )
    lines.append(f"pipeline_tag: {'image-text-to-text' if pictured else 'text-generation'}")
    results = list(_index(about, facts.ran))
    if results:
        name = json.dumps(about.title, ensure_ascii=False)
        lines.append(f"model-index:\n- name: {name}\n  results:\n" + "\n".join(results))
    return "---\n" + "\n".join(lines) + "\n---"


def _bases(made: Sequence[Made]) -> Iterator[str]:
    for one in made:
        if isinstance(one.spec, Sft | Rl) and isinstance(one.spec.model, Model):
            source = one.spec.model.source
            if isinstance(source, HfModel):
                yield source.id


def _index(about: CardFacts, ran: Ran) -> Iterator[str]:
    """Accuracies of the evals that judged this model."""
    for stage in ran.evals:
        metrics = ran.entries[stage.name].get("metrics", {})
        assert isinstance(stage.spec, Eval), "only evals are asked for"
        judged = stage.spec.model
        if not isinstance(judged, TrainedModel) or judged.stage != about.made[-1].name:
            continue
        for name, found in (metrics.get("by_source") or {stage.name: metrics}).items():
            if "accuracy" in found:
                shown, value = json.dumps(name), round(100 * found["accuracy"], 2)
                yield (
                    "  - task:\n      type: question-answering\n"
                    f"    dataset:\n      name: {shown}\n      type: {shown}\n"
                    f"    metrics:\n    - type: accuracy\n      value: {value}\n      name: {json.dumps(stage.name)}"
                )


def _summary(about: CardFacts) -> str:
    last = about.made[-1]
    return (
        f"The model of the stage `{last.address}`, artifact `{last.fingerprint}`, made by omr {about.version}. Every figure "
        "below is read from the lineage of its run."
    )


def _trainings(made: Sequence[Made]) -> Iterator[str]:
    for one in made:
        spec = one.spec
        if isinstance(spec, Sft | Rl):
            start = (
                model_text(spec.model)
                if isinstance(spec.model, Model)
                else f"the model of `{spec.model.stage}`"
            )
            how = f" by {spec.algorithm.kind}" if isinstance(spec, Rl) else ""
            steps = one.entry.get("steps_done") or 0
            yield f"- `{one.address}`: {steps:,} steps{how} on `{spec.rows}`, from {start}, seed {spec.seed}"
