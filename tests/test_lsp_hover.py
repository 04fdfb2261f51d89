"""Hovers tell what stands under the cursor. Driven by a real client over standard input and output."""

from __future__ import annotations

import pytest

from tests.editor import RECIPE, Editor


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("max_tok|ens  = length", ["`tokens`", "required", "longest response", "class `rows`"]),
        ("tempera|ture = 1.0", ["at least 0", "0 is greedy"]),
        ("traces from puzzles wi|th teacher", ["the teacher", "class `rows`"]),
        ("from traces", ["sample traces from puzzles", "temperature = 1.0"]),
        ("formats.think_answer_short", ["prompt think_answer_short {}", "No system prompt"]),
        ("format_ok and", ["format_ok → bool", "reasoning format"]),
        ("len(answer)", ["len(any) → number", "characters of a text"]),
        ("answer) <=", ["the column `answer`, text"]),
        ("scripted(", ["```omr\nscripted(name, right)\n```", "a program, not a model"]),
        ("right = 70%", ["probability of a right trace"]),
        ("sample traces", ["reasoning traces, `n` for each input row", "settings:", "`max_tokens`"]),
        ("length\n}", ["let length = 64"]),
        ("puzzles with", ["source puzzles from", "Drawn puzzles."]),
    ],
)  # fmt: skip
def test_hover(ide: Editor, place: str, told: list[str]) -> None:
    plain = place.replace("|", "")
    # Without a cursor of its own a case means its first word; the last dotted part of it.
    word = (
        place if "|" in place else place.replace(".", ".|", 1) if "." in place[:9] else f"|{place}"
    )
    if plain.startswith("from "):
        word = "from |" + plain[5:]
    assert RECIPE.count(plain) >= 1
    at = RECIPE.rindex(plain) if plain == "from traces" else RECIPE.index(plain)
    found = ide.hover(RECIPE[:at] + word + RECIPE[at + len(plain) :])
    for part in told:
        assert part in found


def test_hover_of_an_expected_number(ide: Editor) -> None:
    found = ide.hover(RECIPE.replace("<= 50", "<= 50\n  expect = ke|pt > 3%"))
    assert found == "the number `kept`: share of the rows that went in"


def test_hover_of_nothing(ide: Editor) -> None:
    assert ide.hover("# sam|ple") == ""
    assert ide.hover("sample x from y { keep = not_th|ere }") == ""
    assert ide.hover("|") == ""
