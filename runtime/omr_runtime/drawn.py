"""A stored picture -> what this terminal can show of it: the picture, blocks in its colours, or the path of its file.

Kitty's graphics protocol (kitty, Ghostty), iTerm's inline images (iTerm2, WezTerm), else half blocks where a terminal says
that it has 24-bit colours.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from omr_runtime.errors import RunError
from omr_runtime.store import ImageStore

Way: TypeAlias = Literal["kitty", "iterm", "blocks", "path"]
COLUMNS = 40
_KITTY_CHUNK = 4096


def way_of(environment: Mapping[str, str], is_terminal: bool) -> Way:
    """What the terminal says of itself.

    >>> way_of({"TERM": "xterm-kitty"}, True), way_of({"COLORTERM": "truecolor"}, True), way_of({}, True)
    ('kitty', 'blocks', 'path')
    """
    if not is_terminal or "TMUX" in environment:  # tmux hands on neither protocol
        return "path"
    program, term = environment.get("TERM_PROGRAM", ""), environment.get("TERM", "")
    if "KITTY_WINDOW_ID" in environment or term == "xterm-kitty" or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm"):
        return "iterm"
    return "blocks" if environment.get("COLORTERM") in ("truecolor", "24bit") else "path"


def drawn(folder: Path, digest: str, way: Way) -> str:
    """One picture. Where it cannot be read any more its path says so."""
    images = ImageStore(folder)
    if way == "path":
        return str(images.path(digest))
    try:
        picture = images.open(digest)
    except RunError as error:
        return str(error)
    if way == "blocks":
        return _blocks(picture)
    data = io.BytesIO()
    picture.save(data, "PNG")
    return (_kitty if way == "kitty" else _iterm)(data.getvalue())


def _kitty(png: bytes) -> str:
    text = base64.b64encode(png).decode()
    chunks = [text[at : at + _KITTY_CHUNK] for at in range(0, len(text), _KITTY_CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        first = f"a=T,f=100,c={COLUMNS}," if number == 0 else ""
        parts.append(f"\x1b_G{first}m={int(number < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(parts)


def _iterm(png: bytes) -> str:
    settings = f"inline=1;width={COLUMNS};preserveAspectRatio=1;size={len(png)}"
    return f"\x1b]1337;File={settings}:{base64.b64encode(png).decode()}\x07"


def _blocks(picture: object) -> str:
    """Two pixels a character, one above the other."""
    from PIL import Image

    assert isinstance(picture, Image.Image), "what the store opens"
    width = min(COLUMNS, picture.width)
    height = max(2, round(picture.height * width / picture.width) // 2 * 2)
    small = picture.resize((width, height))
    lines = []
    for y in range(0, height, 2):
        cells = (_cell(small.getpixel((x, y)), small.getpixel((x, y + 1))) for x in range(width))
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def _cell(upper: object, lower: object) -> str:
    over, under = (";".join(map(str, colour)) for colour in (upper, lower))  # type: ignore[call-overload]
    return f"\x1b[38;2;{over}m\x1b[48;2;{under}m▀"
