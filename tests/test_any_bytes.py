"""Any bytes give a plan or diagnostics, never a traceback: drawn here in small numbers, bred in large by benchmarks/fuzz.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omrlang.compiler import load_all
from omrlang.format import format_text
from omrlang.planning import make_plan
from omrlang.render import concise, render

ROOT = Path(__file__).parents[1]
SHIPPED = sorted([*(ROOT / "pipelines").rglob("*.omr"), *(ROOT / "stdlib").rglob("*.omr")])
BOUNDED = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ODD = [b"\0", b"\xff\xfe", b"\r\n", b"\r", b"\xef\xbb\xbf", "\u2028é\ud7ff😀".encode(), b"9" * 400, b"1e-999999", b'"""', b'"', b"(" * 80, b"{", b"# ", b"\n", b" = ", b"sweep(1, 2)", b'amend "x.omr"\n', b'use "x.omr" as x\n', b"unpublished", b"default"]  # fmt: skip


def holds(data: bytes, folder: Path) -> bool:
    """A plan for every variant, or diagnostics that can be shown; formatting twice is once. Fails where it is broken."""
    path = folder / "x.omr"
    path.write_bytes(data)
    recipes, diagnostics = load_all(path)
    assert bool(recipes) != any(item.severity == "error" for item in diagnostics)
    assert render(diagnostics) or not diagnostics
    assert all(concise(item) for item in diagnostics)
    for recipe in recipes[:2]:
        assert make_plan(recipe, folder / "state", path).model_dump_json()
    text = data.decode("utf-8", "replace")
    assert format_text(format_text(text)) == format_text(text)
    return True


@given(st.binary(max_size=300))
@BOUNDED
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    assert holds(data, tmp_path)


@given(st.data())
@BOUNDED
def test_shipped_recipes_with_bytes_put_in_and_cut_out(tmp_path: Path, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(SHIPPED)).read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        at, cut = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 30))
        text = text[:at] + data.draw(st.sampled_from([*ODD, b""])) + text[at + cut :]
    assert holds(text, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b'amend "a\0b.omr"\n',
        b'use "a\0b.omr" as x\n',
        b'use "./././x.omr" as x\n',
        b'source s from jsonl("a\0b")\n',
        b'model m = folder("\0")\n\nsource s from folder("\0")\n',
        b'amend "' + b"a/" * 3_000 + b'x.omr"\n',
        b"let a = " + b"b" * 400,
    ],
    ids=range(7),
)
def test_what_was_found_so(data: bytes, tmp_path: Path) -> None:
    assert holds(data, tmp_path)
