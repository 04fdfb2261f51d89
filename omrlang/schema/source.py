"""``source NAME from PLACE { … }`` and ``benchmark NAME from PLACE { … }``: raw rows, mapped to the one row schema."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from omrlang.schema.stage import StageSpec
from omrlang.types import Aggregate, Clause, Place, RowExpr, Setting


class Source(StageSpec):
    version: ClassVar[int] = 2  # rows have `videos` and `audios` since then

    kind: Literal["source"] = "source"
    benchmark: bool = False

    place: Annotated[Place, Clause("from", "rows", "where the raw rows are")]
    columns: Annotated[
        dict[str, RowExpr],
        Setting(
            cls="rows",
            doc="row schema column = expression over the raw columns; without it, columns of the same name",
        ),
    ] = {}  # noqa: RUF012
    where: Annotated[
        RowExpr | None,
        Setting(
            cls="rows",
            doc="keep raw rows, after mapping, for which this is true; others are dropped with this as reason",
        ),
    ] = None
    rows: Annotated[
        int | None,
        Setting(
            cls="meta",
            unit="rows",
            ge=0,
            doc="how many rows there are; lets a plan be made without the file, checked when it is read",
        ),
    ] = None
    take: Annotated[
        int | None,
        Setting(
            cls="rows",
            unit="rows",
            ge=1,
            doc="read only the rows with the lowest sha256(seed, id): a subset that nests, of which `where` keeps some",
        ),
    ] = None
    label: Annotated[
        str | None,
        Setting(cls="rows", doc="what the column `source` holds; default the source's name"),
    ] = None
    bad_rows: Annotated[
        Literal["stop", "drop"],
        Setting(
            cls="rows",
            doc="a line that does not parse or an image that cannot be read: stop with its place, or drop it with the reason",
        ),
    ] = "stop"
    licence: Annotated[str | None, Setting(cls="meta", doc="the licence of the data")] = None
    aggregate: Annotated[
        Aggregate,
        Setting(
            cls="rows",
            doc="how an `eval` of these rows makes one number of them where it does not say itself",
        ),
    ] = "mean"
    contains: Annotated[
        tuple[str, ...],
        Setting(
            cls="meta",
            doc="published data sets whose items are among these, its own name first; sets that share one may share items",
        ),
    ] = ()
