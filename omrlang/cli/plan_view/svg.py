"""Shapes with their texts become SVG. Alone writes markup from values, and escapes every one of them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NewType

Markup = NewType("Markup", str)
"""Text that is markup already; everything else is escaped on the way in."""


def element(tag: str, *children: Markup | str, **attributes: object) -> Markup:
    """``class_`` and ``stroke_width`` are written ``class`` and ``stroke-width``; what is None is left out.

    >>> element("b", "a < b", class_="x")
    '<b class="x">a &lt; b</b>'
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(child if isinstance(child, _Safe) else escape(str(child)) for child in children)
    return safe(f"<{tag}{written}>{inner}</{tag}>")


class _Safe(str):
    """A string that ``element`` made."""


def safe(text: str) -> Markup:
    """Mark text as markup; for what this package itself made."""
    return Markup(_Safe(text))


def joined(parts: Iterable[Markup]) -> Markup:
    """Markup one after the other."""
    return safe("".join(parts))


def _plain(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def picture(width: float, height: float, label: str, *children: Markup) -> Markup:
    """A drawing in its natural size that a screen reader names."""
    return element(
        "svg",
        element("title", label),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=float(width),
        height=float(height),
        role="img",
    )


def words(x: float, y: float, text: str, cls: str = "", anchor: str | None = None) -> Markup:
    """One line of text."""
    return element("text", text, x=x, y=y, class_=cls or None, text_anchor=anchor)


def block(x: float, y: float, width: float, height: float, cls: str, tip: str = "") -> Markup:
    """A rectangle; ``tip`` is shown where the pointer rests."""
    return _rectangle(f"{x:.1f}", y, f"{width:.1f}", height, cls, tip)


def strip(height: float, label: str, *children: Markup) -> Markup:
    """A drawing as wide as there is room for. What stands in it is placed by shares of its width, as ``stripe`` does."""
    return element(
        "svg", element("title", label), *children, width="100%", height=height, role="img"
    )


def stripe(start: float, width: float, height: float, cls: str, tip: str = "") -> Markup:
    """A rectangle of a strip; ``start`` and ``width`` are shares of the strip's width."""
    return _rectangle(_percent(start), 0.0, _percent(width), height, cls, tip)


def whisker(start: float, end: float, y: float) -> Markup:
    """The thin line of a range, between two shares of a strip's width."""
    return element("line", x1=_percent(start), x2=_percent(end), y1=y, y2=y, class_="whisker")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _rectangle(x: str, y: float, width: str, height: float, cls: str, tip: str) -> Markup:
    inner = [element("title", tip)] if tip else []
    return element("rect", *inner, x=x, y=y, width=width, height=height, rx=2.0, class_=cls)


def shortened(text: str, room: int) -> str:
    """A name without its module where that does not fit, then as much as does.

    >>> shortened("sources.llava_cot", 20), shortened("sources.llava_cot", 12), shortened("openvlthinker", 12)
    ('sources.llava_cot', 'llava_cot', 'openvlthink…')
    """
    if len(text) > room:
        text = text.rpartition(".")[2]
    return text if len(text) <= room else f"{text[: room - 1]}…"
