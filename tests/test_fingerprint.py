"""What moves a fingerprint and what does not: every setting of every kind, names, order, units, content."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import made_recipes as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omrlang import functions
from omrlang import types as t
from omrlang.fingerprint import deciding_classes, fingerprint
from omrlang.hir import Recipe
from omrlang.lower import lower
from omrlang.pins import Pins
from omrlang.references import declarations, references
from omrlang.schema import Eval, Filter, Mix, Rl, Sample, Sft, Source, Spec
from omrlang.types import Setting

OTHER_PROMPT = t.Prompt(name="other", system="Think first.")
GPU = t.Hardware(name="pod", gpu=made.A800, count=1)
EXPRESSION = made.expression(t.Call(fn="format_ok"), "format_ok")
LENGTH = t.Range(lo=1, hi=2)
EXPECT = t.Expect(
    text="rows > 3", limits=(t.Limit(metric="rows", lo=3, strict=True, text="rows > 3"),)
)

DECODING: dict[str, object] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 20,
    "min_pixels": 100,
    "max_pixels": 1000,
    "engine": t.Transformers(batch=2),
    "model": made.TINY.model_copy(update={"precision": "bf16"}),
    "hardware": GPU,
    "prompt": OTHER_PROMPT,
    "max_tokens": 65,
    "n": 3,
    "assume": t.Assume(response=LENGTH),
    "expect": EXPECT,
}
TRAINING: dict[str, object] = {
    "rows": "other",
    "model": made.QWEN,
    "hardware": GPU,
    "prompt": OTHER_PROMPT,
    "steps": 41,
    "epochs": 3.0,
    "lr": t.Constant(peak=1e-4),
    "optimizer": t.AdamW(weight_decay=0.1),
    "max_grad_norm": 0.5,
    "precision": "bf16",
    "adapter": t.Lora(rank=8, alpha=16),
    "freeze": ("language",),
    "sharding": t.Zero(stage=2),
    "processes": 2,
    "micro_batch": 4096,
    "recompute": True,
    "checkpoint": t.Checkpoint(every=5),
    "min_pixels": 100,
    "max_pixels": 1000,
    "assume": t.Assume(response=LENGTH),
    "expect": EXPECT,
}
OTHERS: dict[type[Spec], dict[str, object]] = {
    Source: {
        "place": t.Synthetic(name="shapes", n=3001, seed=11),
        "columns": {"question": EXPRESSION},
        "where": EXPRESSION,
        "rows": 5,
        "take": 10,
        "label": "other",
        "bad_rows": "drop",
        "licence": "MIT",
        "aggregate": "majority",
        "contains": ("ChartQA",),
        "assume": t.Assume(prompt=LENGTH),
        "expect": EXPECT,
    },
    Mix: {
        "parts": (t.MixPart(rows="puzzles", amount=t.Count(n=5)),),
        "total": 10,
        "unique": "none",
        "shuffle": False,
        "assume": t.Assume(prompt=LENGTH),
        "expect": EXPECT,
    },
    Sample: {"rows": "other", "until": t.Enough(count=2, of=EXPRESSION), **DECODING},
    Filter: {
        "rows": "other",
        "hardware": GPU,
        "keep": EXPRESSION,
        "unique": t.Near(columns=(EXPRESSION,), at=0.9),
        "at_most": t.Amount(value=2, unit="per parent"),
        "assume": t.Assume(keep=t.Range(lo=0.1, hi=0.2)),
        "expect": EXPECT,
    },
    Sft: {**TRAINING, "pack": 4096, "batch": t.Amount(value=2, unit="packs"), "loss": t.CrossEntropy(fused=False)},
    Rl: {
        **TRAINING,
        "algorithm": t.Gspo(clip=(0.1, 0.2)),
        "reward": EXPRESSION,
        "order": t.Descending(by=EXPRESSION),
        "group": 4,
        "rollout_correction": t.TokenTruncated(),
        "behind": 1,
        "oversample": t.Amount(value=16, unit="prompts"),
        "unfinished": t.Drop(),
        "batch": t.Amount(value=16, unit="prompts"),
        "minibatch": t.Amount(value=16, unit="prompts"),
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 20,
        "max_prompt": 64,
        "max_response": 65,
        "watch": t.Watch(every=2, rows=t.RowSets(names=("other",))),
        "engine": t.Transformers(batch=2),
    },
    Eval: {
        "rows": ("other",),
        **DECODING,
        "score": EXPRESSION,
        "aggregate": t.Worst(by="variant"),
    },
}  # fmt: skip
SAME_RESULT = {("sft", "loss")}
"""Settings of class ``weights`` whose one value here gives the same result: a fused loss only needs less memory."""

PARENTS = {"puzzles": "p" * 32, "held_out": "h" * 32, "questions": "q" * 32, "traces": "t" * 32, "accepted": "a" * 32, "cold_start": "c" * 32, "reasoner": "r" * 32, "other": "o" * 32}  # fmt: skip
STAGES = [
    made.puzzles(),
    made.questions(),
    made.traces(),
    made.accepted(),
    made.cold_start(),
    made.reasoner(),
    made.after(),
]


def mark(spec: Spec, revision: str | None = None) -> str:
    return fingerprint(spec, PARENTS, revision)


def changed_settings() -> Iterator[tuple[Spec, str]]:
    for spec in STAGES:
        for name, _ in declarations(spec):
            yield spec, name


@pytest.mark.parametrize(
    ("spec", "name"),
    list(changed_settings()),
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_every_setting_moves_it_as_its_class_says(spec: Spec, name: str) -> None:
    declared = dict(declarations(spec))[name]
    other = spec.model_copy(update={name: OTHERS[type(spec)][name]})
    assert getattr(other, name) != getattr(spec, name), "the table holds another value"
    moves = declared.cls in deciding_classes(spec) and (spec.kind, name) not in SAME_RESULT
    assert (mark(other) != mark(spec)) == moves


def test_a_stage_s_own_name_decides_nothing() -> None:
    for spec in STAGES:
        assert mark(spec.model_copy(update={"name": "another"})) == mark(spec)


def test_seed_and_revision_decide() -> None:
    for spec in STAGES:
        assert mark(spec.model_copy(update={"seed": 8})) != mark(spec)
        assert mark(spec, "abc") != mark(spec, "abd")


def test_a_parent_counts_by_its_fingerprint() -> None:
    for spec in STAGES:
        for name in references(spec):
            assert fingerprint(spec, {**PARENTS, name: "z" * 32}, None) != mark(spec)


def test_names_of_prompts_and_models_decide_nothing() -> None:
    spec = made.traces()
    assert mark(made.traces(prompt=made.SHORT.model_copy(update={"name": "mine"}))) == mark(spec)
    renamed = made.TEACHER.model_copy(
        update={"name": "mine", "licence": "MIT", "engine": t.OpenAI(url="http://x")}
    )
    assert mark(made.traces(model=renamed)) == mark(spec)


def test_order_of_columns_decides_nothing_and_order_of_parts_does() -> None:
    columns = {"question": EXPRESSION, "answer": made.REWARD}
    turned = dict(reversed(columns.items()))
    assert mark(made.puzzles(columns=columns)) == mark(made.puzzles(columns=turned))
    parts = (t.MixPart(rows="puzzles", amount=t.All()), t.MixPart(rows="other", amount=t.All()))
    assert mark(made.questions(parts=parts)) != mark(made.questions(parts=parts[::-1]))


def test_amounts_count_as_what_they_come_to() -> None:
    pod = made.POD.model_copy(update={"count": 32})
    each = made.cold_start(hardware=pod, batch=t.Amount(value=1, unit="packs / gpu"))
    assert mark(each) == mark(made.cold_start(hardware=pod, batch=t.Amount(value=32, unit="packs")))
    twice = each.model_copy(update={"hardware": pod.model_copy(update={"count": 64})})
    assert mark(twice) != mark(each)


def test_a_warmup_in_percent_is_a_number_of_steps() -> None:
    share = t.Constant(peak=1e-3, warmup=t.Amount(value=0.1, unit="fraction"))
    steps = t.Constant(peak=1e-3, warmup=t.Amount(value=4, unit="steps"))
    assert mark(made.reasoner(lr=share)) == mark(made.reasoner(lr=steps))


def test_defaults_that_hang_on_others_are_filled_in() -> None:
    assert mark(made.reasoner(minibatch=t.Amount(value=32, unit="prompts"))) == mark(
        made.reasoner()
    )
    assert mark(made.after(score=made.REWARD)) == mark(made.after())


def test_expressions_count_by_their_tree() -> None:
    again = made.KEEP.model_copy(
        update={"text": "answer_matches and format_ok, as somebody wrote it"}
    )
    assert mark(made.accepted(keep=again)) == mark(made.accepted())
    turned = made.expression(
        t.Binary(op="and", left=t.Call(fn="answer_matches"), right=t.Call(fn="format_ok")), ""
    )
    assert mark(made.accepted(keep=turned)) != mark(made.accepted())


def test_versions_of_verifiers_and_kinds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mark(made.accepted()), mark(made.questions())
    newer = dataclasses.replace(functions.FUNCTIONS["answer_matches"], version=2)
    monkeypatch.setitem(functions.FUNCTIONS, "answer_matches", newer)
    assert mark(made.accepted()) != before[0]
    assert mark(made.questions()) == before[1]
    monkeypatch.setattr(Mix, "version", 2)
    assert mark(made.questions()) != before[1]


def test_a_judge_counts_by_its_weights_not_by_where_it_is_served() -> None:
    def keep(**other: object) -> Spec:
        model = made.QWEN.model_copy(update=other)
        return made.accepted(
            keep=made.expression(t.Call(fn="judge", model=model), "judge(referee)")
        )

    assert mark(keep(engine=t.OpenAI(url_env="REFEREE_URL"), name="other")) == mark(keep())
    assert mark(keep(precision="fp32")) != mark(keep())


# ---- through lower: names, files, labels -----------------------------------------------------------------------------


def marks(recipe: Recipe, state: Path) -> list[str]:
    return [stage.fingerprint for stage in lower(recipe, Pins.open(recipe.folder, state))]


@settings(max_examples=20, deadline=None)
@given(st.permutations(["a", "b", "c", "d", "e", "f", "g", "h", "i"]))
def test_renaming_every_stage_moves_nothing(names: list[str]) -> None:
    specs = made.quickstart()
    renamed = dict(zip((spec.name for spec in specs), names, strict=True))
    state = Path("nowhere")
    others = tuple(_renamed(spec, renamed) for spec in specs)
    assert marks(made.recipe(*others), state) == marks(made.recipe(*specs), state)


def _renamed(spec: Spec, names: dict[str, str]) -> Spec:
    update: dict[str, object] = {"name": names[spec.name]}
    match spec:
        case Mix():
            update["parts"] = tuple(
                part.model_copy(update={"rows": names[part.rows]}) for part in spec.parts
            )
        case Eval():
            update["rows"] = tuple(names[name] for name in spec.rows)
        case Sample() | Filter() | Sft() | Rl():
            update["rows"] = names[spec.rows]
        case Source():
            pass
    model = getattr(spec, "model", None)
    if isinstance(model, t.TrainedModel):
        update["model"] = t.TrainedModel(stage=names[model.stage])
    return spec.model_copy(update=update)


def test_a_source_s_name_counts_only_where_an_expression_reads_it() -> None:
    state = Path("nowhere")

    def pair(keep: t.RowExpr) -> list[list[str]]:
        specs = (made.puzzles(), made.questions(), made.traces(), made.accepted(keep=keep))
        other = {
            "puzzles": "drawn",
            "questions": "questions",
            "traces": "traces",
            "accepted": "accepted",
        }
        return [
            marks(made.recipe(*specs), state),
            marks(made.recipe(*(_renamed(spec, other) for spec in specs)), state),
        ]

    before, after = pair(made.KEEP)
    assert before == after
    by_source = made.expression(
        t.Binary(op="==", left=t.Col(name="source"), right=t.Lit(value="puzzles")),
        "source == puzzles",
    )
    before, after = pair(by_source)
    assert before[0] != after[0]


def jsonl(folder: Path, name: str = "a.jsonl") -> Source:
    return made.puzzles(place=t.Jsonl(path=str(folder / name)))


def test_a_local_file_counts_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"question": 1}\n')
    state = tmp_path / "state"
    one = marks(made.recipe(jsonl(tmp_path)), state)
    assert marks(made.recipe(jsonl(tmp_path, "b.jsonl")), state) == one
    (tmp_path / "a.jsonl").write_text('{"question": 2}\n')
    assert marks(made.recipe(jsonl(tmp_path)), state) != one


def test_hashes_are_kept_by_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": 1}\n\n{"question": 2}\n')
    state = tmp_path / "state"
    state.mkdir()
    pins = Pins.open(tmp_path, state)
    first = pins.place(t.Jsonl(path="a.jsonl"))
    pins.save()
    again = Pins.open(tmp_path, state)
    assert again.place(t.Jsonl(path="a.jsonl")) == first
    assert (first.num_rows, again.changed) == (2, False)
    (state / "pins.json").write_text("broken")
    assert Pins.open(tmp_path, state).place(t.Jsonl(path="a.jsonl")) == first


def test_a_missing_file_is_a_problem_and_no_revision(tmp_path: Path) -> None:
    pin = Pins.open(tmp_path, tmp_path).place(t.Parquet(path="no/where.parquet"))
    assert pin.revision is None
    assert pin.problem == "no/where.parquet does not exist"


def test_a_folder_counts_by_names_and_content(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder / "data").mkdir(parents=True)
        (tmp_path / folder / "data" / "part.bin").write_bytes(b"rows")
    pins = Pins.open(tmp_path, tmp_path)
    assert pins.place(t.Folder(path="x")).revision == pins.place(t.Folder(path="y")).revision
    (tmp_path / "y" / "data" / "more.bin").write_bytes(b"")
    assert pins.place(t.Folder(path="x")).revision != pins.place(t.Folder(path="y")).revision


def test_every_declared_setting_is_in_the_table() -> None:
    for spec in STAGES:
        assert set(OTHERS[type(spec)]) == {name for name, _ in declarations(spec)}
        assert all(isinstance(item, Setting | t.Clause) for _, item in declarations(spec))
