"""Rows against row sets: shared words, shared images, and that no order of rows or sets' rows matters."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from verify_parts import condition, row, table, work_order

from omr_runtime.near import hashed
from omr_runtime.stages import filter as filter_stage
from omr_runtime.store import ImageStore
from omr_runtime.verify.seen import Looks, Seen
from omrlang.schema import Filter
from omrlang.types import Call, Lit, Unary

LONG = "In the figure below the line AB is parallel to the line CD and angle x is 40 degrees"


def index(*rows: dict[str, Any], n: int = 13) -> Seen:
    made = Seen(n)
    made.add("bench", rows)
    return made


def asked(question: str, *images: str, id: str = "b") -> dict[str, Any]:
    return {"id": id, "question": question, "images": list(images)}


@pytest.mark.parametrize(
    ("question", "images", "shared"),
    [
        (LONG, [], "13 words in common with row b of bench"),
        (LONG.upper().replace(" ", "\n") + "!", [], "13 words in common with row b of bench"),
        ("First: " + LONG[10:], [], "13 words in common with row b of bench"),
        (LONG, ["other"], "13 words in common with row b of bench"),
        (" ".join(LONG.split()[:12]), [], None),
        ("something else", ["cafe"], None),
        ("something else", ["other", "feed"], "an image in common with row i of bench"),
        ("What is x?", [], "the whole question in common with row s of bench"),
        ("what is X", [], "the whole question in common with row s of bench"),
        ("What is x?", ["another"], None),
        ("", [], None),
        ("?!", [], None),
    ],
)
def test_what_counts_as_seen(question: str, images: list[str], shared: str | None) -> None:
    seen = index(
        asked(LONG), asked("What is x?", id="s"), asked("What is y?", "feed", id="i"), asked("")
    )
    assert seen.look(asked(question, *images)) == shared


def test_a_short_question_over_a_picture_is_no_match_for_the_same_words() -> None:
    assert index(asked("What is y?", "feed")).look(asked("What is y?")) is None


def test_another_length_of_run() -> None:
    seen = index(asked("one two three four five six"), n=3)
    assert seen.look(asked("six five four THREE four five")) is not None
    assert seen.look(asked("one two four three")) is None


words = st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join)
sets = st.lists(st.tuples(words, st.lists(st.sampled_from(["i", "j"]), max_size=1)), max_size=6)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(sets, words, st.randoms(use_true_random=False))
def test_no_order_matters(
    rows: list[tuple[str, list[str]]], question: str, chance: random.Random
) -> None:
    made = [asked(text, *images, id=str(place)) for place, (text, images) in enumerate(rows)]
    other = made[:]
    chance.shuffle(other)
    assert index(*made, n=3).look(asked(question)) == index(*other, n=3).look(asked(question))


def test_a_filter_leaves_out_what_a_benchmark_has_and_names_the_row(tmp_path: Path) -> None:
    call = Call(fn="seen_in", stages=("bench",), named=(("n", Lit(value=4)),))
    spec = Filter(
        name="clean",
        seed=7,
        rows="given",
        keep=condition(Unary(op="not", x=call), "not seen_in(bench, n = 4)"),
    )
    given_rows = [
        row("new", "4", question="a b c d"),
        row("old", "4", question="x one two three four y"),
    ]
    bench = [
        row("b1", "4", question="one two three four"),
        row("b0", "4", question="one two three four five"),
    ]
    work = work_order(spec, tmp_path, {"given": given_rows, "bench": bench})
    work = work.model_copy(update={"inputs": work.inputs[:1], "others": work.inputs[1:]})
    filter_stage.run(work)
    assert [line["id"] for line in table(work, "row")] == ["new"]
    reasons = {(v["row"], v["rule"]): (v["ok"], v["reason"]) for v in table(work, "verdict")}
    why = "4 words in common with row b0 of bench"
    assert reasons["old", "seen_in(bench, n = 4)"] == (True, why)
    assert reasons["old", "not seen_in(bench, n = 4)"] == (False, why)
    assert reasons["new", "seen_in(bench, n = 4)"] == (False, None)


def test_an_image_that_looks_like_one_of_theirs(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    drawn = Image.effect_mandelbrot((120, 90), (-2.0, -1.5, 1.0, 1.5), 40).convert("RGB")
    other = Image.radial_gradient("L").convert("RGB")
    digests = {
        name: store.put(_bytes(image))
        for name, image in {"whole": drawn, "small": drawn.resize((80, 60)), "new": other}.items()
    }
    looks = Looks(0.9, hashed(tmp_path))
    seen = Seen(13, looks)
    seen.add("bench", [asked("What is x?", digests["whole"], id=name) for name in ("b2", "b1")])
    found = seen.look(asked("something else", digests["small"]))
    assert found is not None
    assert found.startswith("an image in common (0.9") or "(1.00 alike)" in found
    assert found.endswith("with row b1 of bench")
    assert seen.look(asked("something else", digests["new"])) is None
    assert index(asked("What is x?", digests["whole"])).look(asked("", digests["small"])) is None


def _bytes(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()
