"""Mixes: amounts, duplicates, order, and that in = kept + dropped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import plans
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omr_runtime.errors import RunError
from omr_runtime.identity import content_hash, copy_id, digest, order_key
from omr_runtime.order import work_order
from omr_runtime.relations import amounts
from omr_runtime.stages import mix as stage
from omr_runtime.store import State
from omr_runtime.work import Shards, read_rows
from omrlang.schema import Mix
from omrlang.types import All, Count, MixAmount, Share, Times, UpTo


def row(
    ident: str, question: str, source: str = "s", response: str | None = None
) -> dict[str, Any]:
    content = content_hash(question, None, None, None)
    return {
        "id": ident,
        "content": content,
        "source": source,
        "question": question,
        "response": response,
    }


def numbered(name: str, n: int) -> list[dict[str, Any]]:
    return [row(digest(name, i), f"{name} {i}", name) for i in range(n)]


def mixed(
    folder: Path, parts: dict[str, list[dict[str, Any]]], spec: Mix, cut: int = 1000
) -> dict[str, list[dict[str, Any]]]:
    """Run a mix in this process over the given rows; its tables. ``cut`` is how many rows an input's shard has."""
    state = State(folder)
    specs = [plans.source(name, f"{name}.jsonl") for name in parts]
    made = plans.plan([*specs, spec], state.folder, folder)
    for name, rows in parts.items():
        shards = Shards(state.artifact(made.stage(name).fingerprint))
        for number in range(max(1, -(-len(rows) // cut))):
            shards.write(number, {"row": rows[number * cut : (number + 1) * cut]})
    work = work_order(made, made.stage(spec.name), state)
    stage.run(work)
    found: dict[str, list[dict[str, Any]]] = {"row": [], "dropped": [], "edge": [], "verdict": []}
    for shard in Shards(work.out).read():
        for table, file in shard.files.items():
            import pyarrow.parquet as pq

            found[table] += pq.read_table(file).to_pylist()
    return found


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def test_all_is_a_permutation_in_the_order_of_the_seed(tmp_path: Path) -> None:
    parts = {"a": numbered("a", 30), "b": numbered("b", 20)}
    found = mixed(tmp_path, parts, plans.mix("m", ["a", "b"]))
    assert ids(found["row"]) == sorted(
        ids(parts["a"] + parts["b"]), key=lambda i: order_key(7, "order", i)
    )
    assert found["dropped"] == []
    kept = mixed(tmp_path / "2", parts, plans.mix("m", ["a", "b"], shuffle=False))
    assert ids(kept["row"]) == ids(parts["a"] + parts["b"])


@pytest.mark.parametrize(
    ("amount", "kept"),
    [
        (All(), 30),
        (Count(n=10), 10),
        (UpTo(n=10), 10),
        (UpTo(n=99), 30),
        (Times(k=3), 90),
        (Count(n=0), 0),
    ],
    ids=str,
)
def test_amounts(tmp_path: Path, amount: MixAmount, kept: int) -> None:
    found = mixed(tmp_path, {"a": numbered("a", 30)}, plans.mix("m", {"a": amount}))
    assert len(found["row"]) == kept
    assert len(set(ids(found["row"]))) == kept, "ids are unique in a stage"
    assert len(found["dropped"]) == max(0, 30 - kept)


def test_subsets_nest_and_are_the_lowest_by_seed(tmp_path: Path) -> None:
    rows = {"a": numbered("a", 60)}
    small = set(ids(mixed(tmp_path / "1", rows, plans.mix("m", {"a": Count(n=10)}))["row"]))
    large = set(ids(mixed(tmp_path / "2", rows, plans.mix("m", {"a": Count(n=30)}))["row"]))
    assert small < large
    assert large == set(sorted(ids(rows["a"]), key=lambda i: order_key(7, "order", i))[:30])


def test_shares_add_up(tmp_path: Path) -> None:
    parts = {"a": Share(fraction=1 / 3), "b": Share(fraction=1 / 3), "c": Share(fraction=1 / 3)}
    spec = plans.mix("m", parts, total=100)
    assert sum(picked.n or 0 for picked in amounts(spec)) == 100
    found = mixed(tmp_path, {name: numbered(name, 50) for name in parts}, spec)
    assert len(found["row"]) == 100


def test_more_than_there_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a: 31 rows are asked for, there are 30; up_to\(31\)"):
        mixed(tmp_path, {"a": numbered("a", 30)}, plans.mix("m", {"a": Count(n=31)}))


def test_duplicates_leave_edge_verdict_and_reason(tmp_path: Path) -> None:
    parts = {
        "a": [row("a1", "x"), row("a2", "y", response="one"), row("a3", "y", response="two")],
        "b": [row("b1", "x"), row("b2", "y", response="two"), row("b3", "z")],
    }
    found = mixed(tmp_path, parts, plans.mix("m", ["a", "b"]))
    assert set(ids(found["row"])) == {"a1", "a2", "a3", "b3"}
    assert {(edge["child"], edge["parent"], edge["role"]) for edge in found["edge"]} == {
        ("b1", "a1", "duplicate_of"),
        ("b2", "a3", "duplicate_of"),
    }
    verdicts = {verdict["row"]: (verdict["ok"], verdict["reason"]) for verdict in found["verdict"]}
    assert verdicts["b1"] == (False, "repeats a1")
    assert verdicts["a1"] == (True, None)
    assert {drop["reason"] for drop in found["dropped"]} == {"duplicate"}


def test_a_duplicate_that_was_not_picked_before_may_be_picked_later(tmp_path: Path) -> None:
    parts = {"a": [row("a1", "x"), row("a2", "y")], "b": [row("b1", "x"), row("b2", "y")]}
    found = mixed(tmp_path, parts, plans.mix("m", {"a": Count(n=1), "b": All()}))
    assert {row["question"] for row in found["row"]} == {"x", "y"}
    assert len(found["dropped"]) == 2


def test_a_part_twice_without_dedup_names_the_copies(tmp_path: Path) -> None:
    rows = {"a": [row("a1", "x")]}
    found = mixed(tmp_path, rows, plans.mix("m", ["a", "a"], unique="none"))
    assert set(ids(found["row"])) == {"a1", copy_id("a1", 1)}
    assert found["edge"] == [{"child": copy_id("a1", 1), "parent": "a1", "role": "derived"}]


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    rows = numbered("a", 40) + [row(f"d{i}", f"a {i % 20}") for i in range(40)]
    other = list(rows)
    random.Random(1).shuffle(other)
    results = [
        mixed(tmp_path / str(n), {"a": part}, plans.mix("m", {"a": UpTo(n=50)}), cut)
        for n, (part, cut) in enumerate(((rows, 7), (other, 1000)))
    ]
    assert results[0] == results[1]


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=15), min_size=1, max_size=3),
    st.sampled_from([All(), UpTo(n=4), Times(k=2)]),
)
def test_in_is_kept_plus_dropped(
    tmp_path_factory: pytest.TempPathFactory, questions: list[list[int]], amount: MixAmount
) -> None:
    names = [f"p{n}" for n in range(len(questions))]
    parts = {
        name: [row(digest(name, i), str(q)) for i, q in enumerate(qs)]
        for name, qs in zip(names, questions, strict=True)
    }
    found = mixed(
        tmp_path_factory.mktemp("mix"), parts, plans.mix("m", dict.fromkeys(names, amount))
    )
    times = amount.k if isinstance(amount, Times) else 1
    distinct = len({question for part in questions for question in part})
    there = sum(len(part) for part in questions)
    if not isinstance(amount, UpTo):
        assert len(found["row"]) == distinct * times
        assert len(found["dropped"]) == there - distinct
    assert len(found["row"]) // times + len(found["dropped"]) == there
    assert len({drop["row"] for drop in found["dropped"]}) == len(found["dropped"])


def test_rows_come_through_whole(tmp_path: Path) -> None:
    rows = [
        {
            **row("a1", "x"),
            "images": ["i1", "i2"],
            "options": ["o"],
            "extra": '{"k": 1}',
            "thinking": "t",
            "pass_rate": 0.5,
        }
    ]
    found = mixed(tmp_path, {"a": rows}, plans.mix("m", ["a"]))
    assert {key: value for key, value in found["row"][0].items() if value is not None} == {
        key: value for key, value in rows[0].items() if value is not None
    }


def test_read_rows_reads_what_was_written(tmp_path: Path) -> None:
    from omr_runtime.work import InputRows

    Shards(tmp_path).write(0, {"row": numbered("a", 3)})
    entry = InputRows(name="a", fingerprint="a", folder=str(tmp_path))
    assert ids(list(read_rows([entry]))) == ids(numbered("a", 3))
