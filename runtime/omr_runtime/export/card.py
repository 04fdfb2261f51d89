"""What a dataset was made of -> its card: sources with their licences, what was sampled, what was thrown out and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omr_runtime.export.ancestry import Made, model_text, place_text, sources
from omr_runtime.export.rows import File
from omrlang.schema import Filter, Mix, Sample
from omrlang.types import Model

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, slots=True)
class Facts:
    """``made`` ends with the stage whose rows these are."""

    title: str
    made: Sequence[Made]
    files: Sequence[File]
    columns: Sequence[str]
    version: str

    @property
    def num_rows(self) -> int:
        return sum(file.num_rows for file in self.files)

    @property
    def licences(self) -> list[str | None]:
        """Of the sources, each once; None where one does not say."""
        found = {source.licence for _, source in sources(self.made)}
        return sorted(found, key=lambda name: (name is None, name or ""))


def card(facts: Facts) -> str:
    """``README.md`` as the hub reads it: YAML, then text."""
    parts = [
        _front(facts),
        f"# {facts.title}\n\n{_summary(facts)}",
        *sections(facts),
        "## Columns\n\n" + ", ".join(f"`{name}`" for name in facts.columns),
    ]
    return "\n\n".join(parts) + "\n"


def sections(facts: Facts) -> list[str]:
    """What the rows came from and went through, which the card of a model has too."""
    return [
        "## Sources\n\n" + table(list(_sources(facts))),
        "## How it was made\n\n" + table(list(_stages(facts))),
        *([f"## Sampled\n\n{text}"] if (text := "\n".join(_teachers(facts))) else []),
        *([f"## Thrown out\n\n{text}"] if (text := _dropped(facts)) else []),
        "## Licences\n\n" + "\n".join(_licences(facts)),
    ]


def _front(facts: Facts) -> str:
    size = next((name for most, name in _SIZES if facts.num_rows < most), "n>1M")
    num_bytes = sum(file.num_bytes for file in facts.files)
    lines = [
        f"license: {yaml_word(hub_licence(facts.licences))}",
        f"pretty_name: {json.dumps(facts.title, ensure_ascii=False)}",
        f"size_categories:\n- {size}",
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*",
        f"dataset_info:\n  splits:\n  - name: train\n    num_examples: {facts.num_rows}\n  download_size: {num_bytes}",
    ]
    return "---\n" + "\n".join(lines) + "\n---"


def hub_licence(licences: Sequence[str | None]) -> str:
    """The word that the hub has for it.

    >>> hub_licence(["MIT"]), hub_licence(["MIT", "Apache-2.0"]), hub_licence([None])
    ('mit', 'other', 'unknown')
    """
    if not licences or None in licences:
        return "unknown"
    return str(licences[0]).lower() if len(licences) == 1 else "other"


def yaml_word(text: str) -> str:
    """As YAML reads it back: in quotes unless it is a plain word.

    >>> yaml_word("cc-by-4.0"), yaml_word("mine: see #2")
    ('cc-by-4.0', '"mine: see #2"')
    """
    return text if re.fullmatch(r"[a-z][a-z0-9.+-]*", text) else json.dumps(text)


def _summary(facts: Facts) -> str:
    last = facts.made[-1]
    return (
        f"{facts.num_rows:,} rows of the stage `{last.address}`, artifact `{last.fingerprint}`, made by omr "
        f"{facts.version}. `id` names a row in the lineage of the run that made it, `parent` the row it was sampled from."
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _sources(facts: Facts) -> Iterator[list[str]]:
    here = facts.made[-1].entry.get("rows_by_source")
    yield ["source", "from", "revision", "licence", "rows read", *(["rows here"] if here else [])]
    for one, source in sources(facts.made):
        read = one.entry["num_rows"] + one.entry["num_dropped"]
        yield [
            one.name,
            place_text(source.place),
            (one.revision or "-")[:16],
            source.licence or "unknown",
            f"{read:,}",
            *([f"{here.get(source.label or source.name, 0):,}"] if here else []),
        ]


def _stages(facts: Facts) -> Iterator[list[str]]:
    yield ["stage", "rows in", "kept", "dropped", "what it does"]
    for one in facts.made:
        entry = one.entry
        came = entry.get("num_in", entry["num_rows"] + entry["num_dropped"])
        kept = entry.get("num_kept", entry["num_rows"])
        yield [one.address, f"{came:,}", f"{kept:,}", f"{entry['num_dropped']:,}", _does(one)]


def _does(one: Made) -> str:
    match one.spec:
        case Filter(keep=keep, at_most=most):
            return f"keeps `{keep.text}`" + (
                f", at most {most.value:g} {most.unit}" if most else ""
            )
        case Mix(parts=parts):
            return "mixes " + ", ".join(part.rows for part in parts)
        case Sample(n=n):
            return f"samples {n} for each row"
        case _:
            return ""


def _teachers(facts: Facts) -> Iterator[str]:
    for one in facts.made:
        spec = one.spec
        if isinstance(spec, Sample):
            who = (
                model_text(spec.model)
                if isinstance(spec.model, Model)
                else f"stage `{spec.model.stage}`"
            )
            cut = {"top_p": spec.top_p, "top_k": spec.top_k}
            more = "".join(
                f", {name} {value:g}" for name, value in cut.items() if value is not None
            )
            yield (
                f"- `{one.name}`: {spec.n} for each row by {who}, temperature {spec.temperature:g}{more}, at most "
                f"{spec.max_tokens:,} tokens, prompt `{spec.prompt.name}`, seed {spec.seed}"
            )


def _dropped(facts: Facts) -> str:
    rows: list[list[str]] = [["stage", "reason", "rows"]]
    for one in facts.made:
        reasons: dict[str, Any] = one.entry.get("by_reason", {})
        rows += [[one.address, reason, f"{number:,}"] for reason, number in reasons.items()]
    return table(rows) if len(rows) > 1 else ""


def _licences(facts: Facts) -> Iterator[str]:
    for name in facts.licences:
        whose = [one.name for one, source in sources(facts.made) if source.licence == name]
        yield f"- {name or 'unknown'}: {', '.join(whose)}"
    for one in facts.made:
        if isinstance(one.spec, Sample) and isinstance(one.spec.model, Model):
            model = one.spec.model
            yield f"- responses of `{one.name}` were written by {model.name}, licence {model.licence or 'unknown'}"
