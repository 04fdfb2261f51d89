"""Pictures in terminals: by what the terminal says of itself, and read back from what is printed."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from omr_runtime.drawn import COLUMNS, Way, drawn, way_of
from omr_runtime.store import ImageStore


@pytest.fixture
def digest(tmp_path: Path) -> str:
    picture = Image.new("RGB", (80, 40), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 20, 80, 40))
    data = io.BytesIO()
    picture.save(data, "PNG")
    return ImageStore(tmp_path).put(data.getvalue())


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"COLORTERM": "truecolor"}, "blocks"),
        ({"TERM": "xterm-256color"}, "path"),
        ({"TERM": "xterm-kitty", "TMUX": "x"}, "path"),
    ],
)
def test_what_a_terminal_can(environment: dict[str, str], way: Way) -> None:
    assert way_of(environment, is_terminal=True) == way
    assert way_of(environment, is_terminal=False) == "path", "a pipe gets paths"


def sent(text: str, pattern: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode("".join(re.findall(pattern, text)))))


def test_protocols_carry_the_picture(tmp_path: Path, digest: str) -> None:
    kept = ImageStore(tmp_path).open(digest)
    by_kitty = sent(drawn(tmp_path, digest, "kitty"), r"\x1b_G[^;]*;([^\x1b]*)\x1b\\")
    by_iterm = sent(drawn(tmp_path, digest, "iterm"), r":([A-Za-z0-9+/=]+)\x07")
    assert by_kitty.tobytes() == by_iterm.tobytes() == kept.tobytes()


def test_blocks_have_its_colours(tmp_path: Path, digest: str) -> None:
    lines = drawn(tmp_path, digest, "blocks").splitlines()
    assert len(lines) == COLUMNS // 2 // 2
    assert all(line.count("▀") == COLUMNS for line in lines)
    assert "38;2;255;0;0m" in lines[0]
    assert "48;2;0;0;255m" in lines[-1]


def test_a_picture_that_is_gone_is_named(tmp_path: Path, digest: str) -> None:
    path = ImageStore(tmp_path).path(digest)
    assert drawn(tmp_path, digest, "path") == str(path)
    path.unlink()
    assert str(path) in drawn(tmp_path, digest, "blocks")
