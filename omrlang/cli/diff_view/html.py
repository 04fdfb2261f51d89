"""Sections of a diff become one self-contained HTML page; curves are drawn as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from omrlang.cli.diff_view.sections import Section, diff_sections, study_sections
from omrlang.diff.report import Diff, Study

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1d2430;
  background: #fff }
h1 { font-size: 1.3rem; border-left: .4rem solid #b4690e; padding-left: .7rem } h1.clean { border-color: #1a7f37 }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem } table { border-collapse: collapse; margin: .8rem 0 }
td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #d8dee6;
  overflow-wrap: anywhere }
.num td:not(:first-child), .num th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums;
  overflow-wrap: normal }
td:first-child, code { font-family: ui-monospace, monospace; font-size: .92em } summary { font-weight: 600; cursor: pointer }
@media (prefers-color-scheme: dark) { body { color: #e6e9ee; background: #14181f } td, th { border-color: #333c49 } }
"""


def diff_page(diff: Diff) -> str:
    names = f"<p>A <code>{escape(diff.a)}</code><br>B <code>{escape(diff.b)}</code></p>"
    foot = f"<p>Same in both: {diff.num_same} settings.</p>" if diff.factors or diff.others else ""
    body = names + "".join(map(_section, diff_sections(diff))) + foot
    return page(diff.verdict.text, body, is_good=diff.clean)


def study_page(study: Study, extra: str = "") -> str:
    """``extra`` is HTML that stands after the design, such as curves."""
    is_good = all(diff.clean for diff in study.diffs)
    return page(study.design, extra + sections_html(study_sections(study)), is_good=is_good)


def sections_html(sections: Iterable[Section]) -> str:
    return "".join(map(_section, sections))


def page(title: str, body: str, *, is_good: bool) -> str:
    """A whole page, the title first and last. ``body`` is HTML."""
    head = f'<h1 class="{"clean" if is_good else "unclean"}">{escape(title)}</h1>'
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>{head}\n{body}\n<p><strong>{escape(title)}</strong></p></body></html>\n"
    )


def _section(section: Section) -> str:
    lines = "".join(f"<p>{escape(line.strip())}</p>" for line in section.lines)
    body = _table(section) + lines
    title = escape(section.title)
    if section.detail:
        return f"<details open><summary>{title}</summary>{body}</details>\n"
    return f"<h2>{title}</h2>{body}\n" if title else f"{body}\n"


def _table(section: Section) -> str:
    if not section.rows:
        return ""
    head = f"<thead>{_row(section.header, 'th')}</thead>" if section.header else ""
    kind = ' class="num"' if section.numbers else ""
    return f"<table{kind}>{head}{''.join(_row(row, 'td') for row in section.rows)}</table>"


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
