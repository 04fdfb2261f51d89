"""The lineage to what a report needs of it: all its SQL, each answer a list of dicts."""

from __future__ import annotations

from typing import Any

from omr_runtime.lineage import Reader


def diversity(reader: Reader, stage: str) -> list[dict[str, Any]]:
    """Rows, distinct questions and tokens of a row set by source, the largest first."""
    return reader.ask(
        """select coalesce(source, '') as source, count(*) as rows, count(distinct content) as questions,
                  coalesce(sum(num_tokens), 0)::bigint as tokens
           from "row" where stage = ? group by all order by rows desc, source""",
        stage,
    )


def estimated_and_actual(reader: Reader) -> list[dict[str, Any]]:
    """What each run expected of the stages that it finished, beside what came of them."""
    return reader.ask(
        """select stage, metric, lo, mid, hi, unit, origin, value from actual
           join estimate using (run, stage, metric) order by run, metric"""
    )


def decided(reader: Reader, stage: str, each: int) -> list[dict[str, Any]]:
    """A few rows that a stage kept, and of each reason a few that it dropped, the most frequent reasons first."""
    return reader.ask(
        """select id, reason from (
             select id, reason, row_number() over (partition by reason order by id) as place,
                    count(*) over (partition by reason) as num
             from (select id, null as reason from "row" where stage = $1
                   union all select "row", reason from dropped where stage = $1))
           where place <= $2 order by reason is not null, num desc, reason, place""",
        stage,
        each,
    )


def scored(reader: Reader, stage: str, rule: str, each: int) -> list[dict[str, Any]]:
    """A few answers of an eval that ``rule`` found right, and a few that it did not."""
    return reader.ask(
        """select "row" as id, ok, score from verdict where stage = $1 and rule = $2
           qualify row_number() over (partition by ok order by "row") <= $3 order by ok, id""",
        stage,
        rule,
        each,
    )


def extreme_rollouts(reader: Reader, stage: str, each: int) -> list[dict[str, Any]]:
    """Of the last step of reinforcement the rollouts with the lowest and with the highest reward."""
    return reader.ask(
        """with last as (select * from rollout where stage = $1 and
                         step = (select max(step) from rollout where stage = $1))
           select id, "row", step, reward, advantage from last
           qualify row_number() over (order by reward, id) <= $2
                or row_number() over (order by reward desc, id) <= $2 order by reward, id""",
        stage,
        each,
    )


def scores(reader: Reader, stage: str, rule: str) -> list[dict[str, Any]]:
    """Each answer of an eval: the content of its question, and what it counts."""
    return reader.ask(
        """select r.content, v.score from "row" r join verdict v on v.stage = r.stage and v."row" = r.id
           where r.stage = ? and v.rule = ? order by r.content""",
        stage,
        rule,
    )


def common_rows(reader: Reader, a: str, b: str) -> list[dict[str, Any]]:
    """By source the rows that two stages both hold."""
    return reader.ask(
        """select coalesce(source, '') as source, count(distinct id) as num from "row"
           where stage = $1 and id in (select id from "row" where stage = $2) group by 1 order by 1""",
        a,
        b,
    )


def rows_of_one(reader: Reader, has: str, lacks: str, dropping: list[str]) -> list[dict[str, Any]]:
    """By source the rows of one stage that the other lacks, by the reason for which a stage of ``dropping`` dropped them;
    null where none did."""
    return reader.ask(
        """with alone as (select distinct id, coalesce(source, '') as source from "row" where stage = $1
                          and id not in (select id from "row" where stage = $2)),
                gone as (select "row" as id, min(reason) as reason from dropped
                         where stage in (select unnest($3)) group by 1)
           select source, reason, count(*) as num from alone left join gone using (id)
           group by all order by source, num desc, reason""",
        has,
        lacks,
        dropping,
    )
