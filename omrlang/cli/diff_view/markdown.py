"""Sections of a diff become a comment on a pull request: the verdict, what matters, the rest folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omrlang.cli.diff_view.sections import Section, diff_sections, study_sections
from omrlang.diff.report import Diff, Study

SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]<>#|~!"})


def diff_markdown(diff: Diff) -> str:
    head = [f"**{_plain(diff.verdict.text)}**", f"A {_code(diff.a)}  \nB {_code(diff.b)}"]
    foot = [f"Same in both: {diff.num_same} settings."] if diff.factors or diff.others else []
    return "\n\n".join([*head, *map(_section, diff_sections(diff)), *foot, *head[:1]]) + "\n"


def study_markdown(study: Study) -> str:
    head = f"**{_plain(study.design)}**"
    return "\n\n".join([head, *map(_section, study_sections(study)), head]) + "\n"


def _section(section: Section) -> str:
    parts = [_table(section), *(_plain(line.strip()) for line in section.lines)]
    body = "\n\n".join(part for part in parts if part)
    if section.detail:
        return f"<details><summary>{_plain(section.title)}</summary>\n\n{body}\n\n</details>"
    return f"#### {_plain(section.title)}\n\n{body}" if section.title else body


def _table(section: Section) -> str:
    """Markdown knows no table without a header: one of two columns without it is a list."""
    if not section.rows:
        return ""
    if not section.header:
        return "\n".join(_items(section.rows))
    side = "---:" if section.numbers else "---"
    lines = [section.header, ("---", *[side] * (len(section.header) - 1))]
    cells = [lines[0], *section.rows]
    body = [f"| {' | '.join(map(_plain, row))} |" for row in cells]
    return "\n".join([body[0], f"| {' | '.join(lines[1])} |", *body[1:]])


def _items(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for first, *rest in rows:
        said = _plain(" ".join(rest))
        yield f"- {_code(first.strip())} {said}".rstrip() if first else f"  - {said}"


def _plain(text: str) -> str:
    """A text in which nothing means anything to Markdown."""
    return " ".join(text.split()).translate(SPECIAL)


def _code(text: str) -> str:
    """As code, whatever backticks it has itself."""
    clean = " ".join(text.split())
    fence = "`" * (
        max((len(run) for run in clean.replace("`", " ` ").split() if set(run) == {"`"}), default=0)
        + 1
    )
    return f"{fence}{clean}{fence}"
