"""A trained model -> its card: what it was trained from and on, what the data went through, and what it scored."""

from __future__ import annotations

from omr_runtime.errors import RunError
from omr_runtime.export.ancestry import ancestry
from omr_runtime.export.card import Facts as CardFacts
from omr_runtime.export.card import sections
from omr_runtime.export.trained import front, judged, summary, training_sections
from omr_runtime.report.facts import gather
from omr_runtime.report.markdown import markdown
from omr_runtime.report.ran import of_stage
from omr_runtime.store import State
from omrlang.schema import Rl, Sft


def model_card(state: State, stage: str, version: str, title: str | None = None) -> str:
    """``README.md`` for the model that a stage trained. RunError where the stage trains none or is not finished."""
    made = ancestry(state, stage)
    last = made[-1]
    if not isinstance(last.spec, Sft | Rl):
        raise RunError(f"{last.address} trains no model; `omr export dataset` has a card for rows")
    ran = of_stage(state, last.fingerprint)
    facts = gather(ran)
    by_mark = {ran.plan.stage(name).fingerprint: entry for name, entry in ran.entries.items()}
    about = CardFacts(title or last.name, made, (), (), version)
    parts = [
        front(about, judged(ran.plan, by_mark, last.name)),
        f"# {about.title}\n\n{summary(about)}",
        *training_sections(about),
        *sections(about),
        markdown(facts).strip(),
    ]
    return "\n\n".join(parts) + "\n"
