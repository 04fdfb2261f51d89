"""The quickstart and a recipe at the size of a cluster, built by hand, for tests that need no parser."""

from __future__ import annotations

from pathlib import Path

from omrlang import types as t
from omrlang.hir import Recipe, Stage
from omrlang.schema import Eval, Filter, Mix, Rl, Sample, Sft, Source, Spec
from omrlang.source import SourceFile, Span

SPAN = Span(SourceFile(Path("made.omr"), "omr 1\n"), 0, 5)


def recipe(*specs: Spec, folder: Path = Path("."), path: Path = Path("made.omr")) -> Recipe:
    """A recipe of these stages, in this order."""
    return Recipe(
        path=path, folder=folder, seed=7, stages=tuple(Stage(SPAN, spec) for spec in specs)
    )


def expression(tree: t.ExprNode, text: str) -> t.RowExpr:
    return t.RowExpr(text=text, type="bool", tree=tree, rules=(t.Rule(name=text, tree=tree),))


KEEP = expression(
    t.Binary(op="and", left=t.Call(fn="format_ok"), right=t.Call(fn="answer_matches")),
    "format_ok and answer_matches",
)
REWARD = expression(t.Call(fn="answer_matches"), "answer_matches")
SHORT = t.Prompt(name="formats.think_answer_short")
TINY = t.Model(
    name="tiny",
    source=t.Fresh(
        family="qwen2_5_vl",
        layers=4,
        hidden=128,
        heads=4,
        vision_layers=3,
        vision_hidden=96,
        seed=1,
    ),
    precision="fp32",
    vision=True,
)
TEACHER = t.Model(name="teacher", source=t.Scripted(name="shapes", right=0.7))


def puzzles(**other: object) -> Source:
    return Source(
        **{
            "name": "puzzles",
            "seed": 7,
            "place": t.Synthetic(name="shapes", n=3000, seed=11),
            **other,
        }
    )


def questions(**other: object) -> Mix:
    return Mix(
        **{
            "name": "questions",
            "seed": 7,
            "parts": (t.MixPart(rows="puzzles", amount=t.All()),),
            **other,
        }
    )


def traces(**other: object) -> Sample:
    values = {
        "name": "traces",
        "seed": 7,
        "rows": "questions",
        "model": TEACHER,
        "n": 2,
        "prompt": SHORT,
        "temperature": 1.0,
        "max_tokens": 64,
    }
    return Sample(**{**values, **other})


def accepted(**other: object) -> Filter:
    return Filter(
        **{
            "name": "accepted",
            "seed": 7,
            "rows": "traces",
            "keep": KEEP,
            "at_most": t.Amount(value=1, unit="per parent"),
            **other,
        }
    )


def cold_start(**other: object) -> Sft:
    values = {
        "name": "cold_start",
        "seed": 7,
        "rows": "accepted",
        "model": TINY,
        "prompt": SHORT,
        "pack": 2048,
        "batch": t.Amount(value=1, unit="packs"),
        "epochs": 2,
        "lr": t.Cosine(peak=1e-3, warmup=t.Amount(value=0.05, unit="fraction")),
        "precision": "fp32",
    }
    return Sft(**{**values, **other})


def reasoner(**other: object) -> Rl:
    values = {
        "name": "reasoner",
        "seed": 7,
        "rows": "questions",
        "model": t.TrainedModel(stage="cold_start"),
        "prompt": SHORT,
        "algorithm": t.Gspo(clip=(3e-4, 4e-4)),
        "reward": REWARD,
        "group": 8,
        "batch": t.Amount(value=32, unit="prompts"),
        "steps": 40,
        "lr": t.Constant(peak=2e-4),
        "temperature": 1.0,
        "max_prompt": 128,
        "max_response": 64,
        "precision": "fp32",
    }
    return Rl(**{**values, **other})


def after(**other: object) -> Eval:
    values = {
        "name": "after",
        "seed": 7,
        "rows": ("held_out",),
        "model": t.TrainedModel(stage="reasoner"),
        "prompt": SHORT,
        "temperature": 0,
        "max_tokens": 64,
    }
    return Eval(**{**values, **other})


def held_out(**other: object) -> Source:
    return Source(
        **{
            "name": "held_out",
            "seed": 7,
            "place": t.Synthetic(name="shapes", n=300, seed=12),
            **other,
        }
    )


def quickstart() -> tuple[Spec, ...]:
    before = after(name="before", model=TINY)
    return (
        puzzles(),
        held_out(),
        questions(),
        traces(),
        accepted(),
        cold_start(),
        reasoner(),
        before,
        after(),
    )


# ---- at the size of a cluster --------------------------------------------------------------------------------------

A800 = t.Gpu(name="a800_80gb", memory_gib=80, tflops=312, bandwidth_tb_s=2.04)
POD = t.Hardware(name="pod", gpu=A800, count=32, usd_per_gpu_hour=1.6)
QWEN = t.Model(
    name="models.qwen2_5_vl_7b",
    source=t.HfModel(id="Qwen/Qwen2.5-VL-7B-Instruct", revision="abc"),
    vision=True,
    shape=t.Shape(
        num_params=8_292_000_000, layers=28, hidden=3584, heads=28, kv_heads=4, head_dim=128, vocab=152_064,
        intermediate=18_944, vision_params=677_000_000,
    ),
)  # fmt: skip


def cluster() -> tuple[Spec, ...]:
    """The second half of OpenMMReasoner: SFT in packs of 61,440 tokens, then GSPO, with declared sources."""
    place = t.HfData(id="x/traces", revision="r1")
    length = t.Assume(
        response=t.Range(lo=4000, hi=6000),
        prompt=t.Range(lo=80, hi=200),
        image=t.Range(lo=4e5, hi=8e5),
    )
    rows = Source(
        name="traces",
        seed=7,
        place=place,
        rows=874_000,
        columns={"response": expression(t.Col(name="r"), "r")},
        assume=length,
    )
    tasks = Source(
        name="tasks",
        seed=7,
        place=t.HfData(id="x/tasks", revision="r1"),
        rows=74_971,
        assume=length,
    )
    sft = cold_start(rows="traces", model=QWEN, hardware=POD, pack=61_440, batch=t.Amount(value=1, unit="packs / gpu"), epochs=None, steps=4300, precision="bf16", recompute=True, sharding=t.Zero(stage=3))  # fmt: skip
    rl = reasoner(rows="tasks", hardware=POD.model_copy(update={"count": 64}), group=16, batch=t.Amount(value=128, unit="prompts"), steps=1232, max_prompt=4096, max_response=28_696, precision="bf16", recompute=True, sharding=t.Zero(stage=3))  # fmt: skip
    return (rows, tasks, sft, rl)
