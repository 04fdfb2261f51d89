"""The paper's tables as data: what it prints as averages follows from what it prints as results."""

from __future__ import annotations

from pathlib import Path

import pytest

from omrlang.compiler import load
from omrlang.published import Row, Table, about, tables

TABLES = {table.number: table for table in tables()}
AVERAGED = [(table, row) for table in tables() for row in table.rows if row.average is not None]


OFF_BY_A_TENTH = {(3, "x8"), (4, "no filter"), (4, "difficulty"), (5, "none"), (5, "both")}
"""Five of the paper's averages of three columns, all of tables 3 to 5, are not those of the columns that it prints: they were
made of more digits than it shows."""


def row(number: int | str, name: str) -> Row:
    return next(row for row in TABLES[number].rows if row.name == name)


@pytest.mark.parametrize(
    ("table", "row"), AVERAGED, ids=lambda it: it.name.replace(" ", "_") if it else ""
)
def test_printed_averages_are_the_mean_of_the_columns(table: Table, row: Row) -> None:
    assert row.average is not None
    if (table.number, row.name) in OFF_BY_A_TENTH:
        assert 0.05 < abs(row.mean - row.average) < 0.1
    else:
        assert f"{row.mean:.1f}" == f"{row.average:.1f}"


def test_rows_that_stand_in_two_tables_agree() -> None:
    """Those that the text says are the same: the cold start of eight answers, and the format's weight of the main runs."""
    ids = dict(zip(TABLES["S2"].columns, row("S2", "x8").values, strict=True))
    assert row(7, "x8").values == row("S2", "x8").values
    assert row(7, "x8 + math, GRPO x16").values == row("S3", "0.1").values
    assert row(3, "x8").values == tuple(ids[name] for name in TABLES[3].columns)


def test_the_gain_of_the_abstract() -> None:
    """ "11.6%" are points between the means of the twelve columns of table 6."""
    before, after = row(6, "Qwen2.5-VL-7B").mean, row(6, "OpenMMReasoner-7B").mean
    assert (f"{before:.1f}", f"{after:.1f}", f"{after - before:.1f}") == ("42.7", "54.3", "11.6")


def test_two_tables_print_the_same_models() -> None:
    """The cold start and the final model stand in tables 6 and 7, in another order of columns."""
    for six, seven in (
        ("OpenMMReasoner-ColdStart", "x8 + math"),
        ("OpenMMReasoner-7B", "x8 + math, GSPO x16"),
    ):
        in_6 = dict(zip(TABLES[6].columns, row(6, six).values, strict=True))
        in_7 = dict(zip(TABLES[7].columns, row(7, seven).values, strict=True))
        assert in_6 == in_7


def test_columns_are_benchmarks_of_the_standard_library() -> None:
    recipe, _ = load(Path(__file__).parents[1] / "stdlib" / "benchmarks.omr")
    assert recipe is not None
    known = {stage.spec.name for stage in recipe.stages}
    for table in tables():
        assert set(table.columns) <= known
        assert set(table.measure) <= set(table.columns)


def test_a_row_with_a_cell_too_few_is_refused() -> None:
    spoilt = TABLES[8].model_dump() | {"columns": ("aime24",)}
    with pytest.raises(ValueError, match="one value for each column"):
        Table.model_validate(spoilt)


def test_tables_are_found_by_their_benchmarks() -> None:
    assert [table.number for table in about({"gpqa_diamond"})] == [8]
    assert [table.number for table in about({"mathvista", "gsm8k"})] == [6, 7]
