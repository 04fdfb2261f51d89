"""Rules that have SQL and rows to truth values, by DuckDB in memory. Never opens the lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa

from omr_runtime.errors import RunError
from omr_runtime.work import ROW
from omrlang.types import Rule, Scalar, Sql


def answer_in_sql(
    rules: Sequence[Rule], rows: Sequence[Mapping[str, Any]], answers: Sequence[dict[int, bool]]
) -> None:
    """Fill ``answers[i][place]`` for each rule with SQL, ``place`` counted among all rules."""
    places = [place for place, rule in enumerate(rules) if rule.sql is not None]
    if not places or not rows:
        return
    texts: list[str] = []
    params: list[Scalar] = []
    for place in places:
        sql = rules[place].sql
        assert sql is not None, "chosen above"
        texts.append(sql.text)
        params.extend(sql.params)
    for answer, found in zip(answers, _query(texts, params, rows), strict=True):
        answer.update(zip(places, found, strict=True))


def all_true(conditions: Sequence[Sql], rows: pa.Table) -> list[bool]:
    """Whether all conditions hold, for each row of a table in the row schema."""
    params = [value for sql in conditions for value in sql.params]
    text = " AND ".join(f"({sql.text})" for sql in conditions)
    return [held for (held,) in _ask([text], params, rows)]


def _query(
    texts: Sequence[str], params: Sequence[Scalar], rows: Sequence[Mapping[str, Any]]
) -> list[tuple[bool, ...]]:
    columns = [{name: row.get(name) for name in ROW.names} for row in rows]
    return _ask(texts, params, pa.Table.from_pylist(columns, ROW))


def _ask(texts: Sequence[str], params: Sequence[Scalar], rows: pa.Table) -> list[tuple[bool, ...]]:
    import duckdb

    table = rows.append_column("omr_place", pa.array(range(rows.num_rows)))
    with _connection().cursor() as connection:
        connection.register("omr_rows", table)
        query = f"SELECT {', '.join(texts)} FROM omr_rows ORDER BY omr_place"
        try:
            return list(connection.execute(query, list(params)).fetchall())
        except (duckdb.InvalidInputException, duckdb.OutOfRangeException) as error:
            raise RunError(f"a rule cannot be asked in SQL: {error}") from error


class BadPattern(ValueError):
    """A regular expression that RE2 refuses."""


def matches(text: str, pattern: str) -> bool:
    """Whether any part of the text matches. Raises BadPattern."""
    import duckdb

    cursor = _connection().cursor()
    try:
        found = cursor.execute("SELECT regexp_matches(?, ?)", [text, pattern]).fetchall()
    except duckdb.InvalidInputException as error:
        raise BadPattern(str(error)) from error
    return bool(found[0][0])


@cache
def _connection() -> Any:
    """One for this process; each question takes a cursor of its own, so threads do not meet."""
    import duckdb

    return duckdb.connect()
