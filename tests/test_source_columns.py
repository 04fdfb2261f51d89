"""A source that is read by column gives what its rows give one by one, to the last id, verdict and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plans
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from omr_runtime import blocks
from omr_runtime.order import work_order
from omr_runtime.stages import source as stage
from omr_runtime.stages.plain import Plain
from omr_runtime.store import State
from omr_runtime.work import Shards, read_table
from omrlang.expressions import row_expression
from omrlang.schema import Source
from omrlang.types import Binary, Call, Col, Lit

MAPPED = {"question": "q", "answer": "a", "extra.level": "level", "extra.day": "day"}
_TREE = Binary(op="<=", left=Call(fn="len", args=(Col(name="answer"),)), right=Lit(value=4.0))
SHORT = row_expression(_TREE, "len(answer) <= 4", "bool", ["len(answer) <= 4"])


def spec(path: str, mapped: bool, **settings: Any) -> Source:
    columns = {name: plans.column(raw) for name, raw in MAPPED.items()} if mapped else {}
    return plans.source("s", path, columns=columns, bad_rows="drop", **settings)


def tables(folder: Path, given: Source, monkeypatch: pytest.MonkeyPatch, by_column: bool) -> Any:
    """All that the stage writes, by table, as one list each; the shards may be cut otherwise."""
    state = folder / ("columns" if by_column else "rows")
    plan = plans.plan([given], state, folder)
    work = work_order(plan, plan.stages[0], State(state))
    with monkeypatch.context() as patched:
        for limit in ("NUM_LINES", "NUM_ROWS"):
            patched.setattr(blocks, limit, 3)
        if not by_column:
            patched.setattr(Plain, "of", staticmethod(lambda spec, origin: None))
        stage.run(work)
    found: dict[str, list[dict[str, Any]]] = {}
    for shard in Shards(work.out).read():
        for name, file in shard.files.items():
            found.setdefault(name, []).extend(read_table(file))
    for name in ("dropped", "verdict"):
        found.setdefault(name, []).sort(key=lambda row: row["row"])
    found.setdefault("origin", []).sort(key=lambda row: row["position"])
    return found


TEXT = st.text(max_size=6) | st.sampled_from(
    ["2020-01-01", "1e3", "NaN", " ", "\u2028", "é\u00d7", "\x7f\x01"]
)
VALUE = TEXT | st.none() | st.booleans() | st.integers() | st.floats() | st.lists(TEXT, max_size=2)
ROW = st.fixed_dictionaries(
    {"q": TEXT}, optional={"a": TEXT | st.integers(0, 9), "level": VALUE, "day": TEXT, "x": VALUE}
)
ODD = st.sampled_from(
    [
        '{"q":"a","q":"b"}',
        '{"q":"a",}',
        '{"q":NaN}',
        '{"q":"\\ud800"}',
        '{"q":"a"} {"q":"b"}',
        "[1]",
        "{",
        '{"q":"\\u0000z"}',
        "  ",
        '\t{"q":"t"}\r',
        '{"q":1}',
    ]
)
LINES = st.lists(
    ROW.map(json.dumps) | ODD | ROW.map(lambda row: json.dumps(row, ensure_ascii=False)),
    max_size=14,
)


@given(lines=LINES, mapped=st.booleans(), where=st.booleans(), take=st.sampled_from([None, 0, 1]))
@example(
    lines=['{"q":"a","level":1}', '{"q":"b","level":2}', '{"q":"c"}'],
    mapped=True,
    where=True,
    take=None,
)
@example(
    lines=['{"question":"a"}', '{"question":"b","options":["x"]}'],
    mapped=False,
    where=False,
    take=None,
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_lines(
    lines: list[str],
    mapped: bool,
    where: bool,
    take: int | None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    lines = ['{"q":"all","a":"there","level":1,"day":"d"}', *lines]
    text = "\n".join(lines) if mapped else "\n".join(lines).replace('"q"', '"question"')
    (folder / "data.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
    there = sum(bool(line.strip()) for line in text.encode("utf-8", "surrogatepass").split(b"\n"))
    made = spec(
        "data.jsonl", mapped, where=SHORT if where else None, take=take and min(take, there)
    )
    assert tables(folder, made, monkeypatch, True) == tables(folder, made, monkeypatch, False)


@given(rows=st.lists(ROW, min_size=1, max_size=9), kinds=st.booleans())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_parquet(
    rows: list[dict[str, Any]],
    kinds: bool,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    texts = pa.dictionary(pa.int32(), pa.string()) if kinds else pa.large_string()
    table = pa.table(
        {
            "q": pa.array([row["q"] for row in rows]).cast(texts),
            "a": pa.array([len(row) for row in rows], pa.uint8()),
            "level": pa.array([len(row) > 2 or None for row in rows]),
            "day": pa.array([row.get("day") for row in rows], pa.string()),
        }
    )
    pq.write_table(table, folder / "data.parquet", row_group_size=4)
    made = spec("data.parquet", True, where=SHORT)
    assert tables(folder, made, monkeypatch, True) == tables(folder, made, monkeypatch, False)


def test_plain_rows_are_read_by_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would hold if nothing ever were."""
    rows = [{"q": f"é {n}", "a": n, "level": n % 3, "day": "2020-01-01"} for n in range(50)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    looked_at: list[int] = []
    monkeypatch.setattr(stage, "_one_by_one", lambda reader, raws: looked_at.append(len(raws)))
    found = tables(tmp_path, spec("data.jsonl", True, where=SHORT), monkeypatch, True)
    assert not looked_at
    assert [row["answer"] for row in found["row"]] == [str(n) for n in range(50)]
    assert json.loads(found["row"][7]["extra"]) == {"day": "2020-01-01", "level": 1}
