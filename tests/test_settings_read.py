"""Every setting is read: given another value, the resolved plan is another, and fingerprints move exactly as its class says.

The settings and their values are made from the schema itself, so that a new setting is tested by being declared.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from omrlang.check.things import MODELS
from omrlang.compiler import load
from omrlang.declared import Key, arguments, clauses, settings
from omrlang.fingerprint import deciding_classes
from omrlang.functions import COLUMNS
from omrlang.leaves import FIELD_CLASS
from omrlang.plan import Plan
from omrlang.planning import make_plan
from omrlang.schema import KINDS
from omrlang.types import (
    Amount,
    Enough,
    Expect,
    Gpu,
    Hardware,
    Prompt,
    Range,
    RowExpr,
    RowSets,
    SettingClass,
)

ROOT = Path(__file__).parents[1]
BASE = """omr 1

seed = 7

gpu card { memory = 80 GiB, compute = 312 TFLOP / s, bandwidth = 2 TB / s }

hardware pod = 8 * card

hardware desk { count = 4 }

model start = hf("a/start", revision = "r1")

model grader = hf("a/grader", revision = "r1") {
  shape {
    num_params = 1_000_000
    layers = 2, hidden = 64, heads = 2, kv_heads = 2, head_dim = 32, vocab = 100, intermediate = 128
  }
}

model other = hf("a/other", revision = "r1")

prompt style { system = "Think first." }

prompt plain {}

verifier mine = python("rewards:score") { version = 1 }

source spare from synthetic("shapes", n = 64, seed = 4) {
  columns { question = question, answer = answer, variant = answer, extra.step = answer }
}

source easy from synthetic("shapes", n = 64, seed = 1)

source hard from synthetic("shapes", n = 64, seed = 2)

benchmark test from synthetic("shapes", n = 64, seed = 3) {
  columns { question = question, answer = answer, variant = answer, extra.step = answer }
}

mix questions from [easy: 50%, hard: 50%] { total = 100 }

sample traces from questions with other on pod {
  n           = 2
  prompt      = style
  temperature = 1
  max_tokens  = 64
}

sample more = traces { n = 3 }

filter accepted from traces { keep = format_ok or judge(grader) }

sft cold_start from accepted with start on desk {
  prompt = style
  pack   = 1_024
  batch  = 16 packs
  steps  = 100
  lr     = constant(1e-4)
  checkpoint { every = 50 steps }
}

rl reasoner from easy with start on desk {
  prompt       = style
  algorithm    = gspo(clip = [0.1, 0.2])
  reward       = mine
  group        = 8
  batch        = 32 prompts
  minibatch    = 16 prompts
  steps        = 100
  lr           = constant(1e-4)
  temperature  = 1
  max_prompt   = 64
  max_response = 64
  checkpoint { every = 50 steps }
  watch { every = 50 steps, from = [test] }
}

eval after from test with start on pod {
  prompt      = style
  temperature = 0
  max_tokens  = 64
}

budget { p50 = $10_000, p90 = $20_000 }
"""
OWNERS = {
    "source": "spare", "benchmark": "test", "mix": "questions", "sample": "traces", "filter": "accepted",
    "sft": "cold_start", "rl": "reasoner", "eval": "after", "model": "grader", "gpu": "card",
    "hardware": "pod", "prompt": "style", "verifier": "mine", "budget": "budget",
}  # fmt: skip
USERS = {
    "model": "accepted",
    "gpu": "traces",
    "hardware": "traces",
    "prompt": "traces",
    "verifier": "reasoner",
}
"""A stage that names the thing: its fingerprint is what the thing's settings decide."""
HELD_BY: dict[str, SettingClass] = {
    "model": "rows",
    "gpu": "speed",
    "hardware": "speed",
    "prompt": "rows",
    "verifier": "weights",
    "budget": "meta",
}
EXPRESSIONS = {
    "keep": ("format_ok", "answer_matches"), "reward": ("answer_matches", "format_score"), "score": ("answer_matches", "format_score"),
    "where": ("len(question) > 1", "len(question) > 2"), "user": ("question", 'question + "!"'),
    "by": ("len(question)", "len(answer)"), "columns": ("[question]", "[answer]"),
}  # fmt: skip
MAPPED = {"text": ("question", "answer"), "list": ("images", "[question]"), "number": ("1", "2")}
"""Raw columns for a column of each type."""
DIVIDING = {
    "minibatch": ("8 prompts", "16 prompts"), "processes": ("1", "2"), "tensor_parallel": ("1", "2"), "per_node": ("2", "4"), "count": ("8", "16"),
}  # fmt: skip
"""Counts that others must be whole multiples of."""
CLAUSES = {
    "mix.from": ("[easy: 50%, hard: 50%]", "[easy: 40%, hard: 60%]"), "sample.from": ("questions", "easy"), "filter.from": ("traces", "more"),
    "sft.from": ("accepted", "traces"), "rl.from": ("easy", "hard"), "eval.from": ("[test]", "[test, easy]"),
    "with": ("start", "other"), "on": ("pod", "2 * pod"),
}  # fmt: skip

NEEDED = {"reasoner.unfinished": "reasoner.oversample=8 prompts"}
"""Settings that stand beside another alone."""

UNSEEN = {"test.columns.videos", "test.columns.audios"}
"""Columns of a benchmark that no model in process is shown, so that the recipe would be wrong; a source has the same."""


@dataclass(frozen=True)
class Case:
    """One setting with two values for it. ``stage`` is the stage whose fingerprint the setting's class speaks of."""

    path: str
    stage: str | None
    cls: SettingClass
    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.path}={self.other}"


# ---- values from declarations ------------------------------------------------------------------


def values(key: Key) -> tuple[str, str]:
    """Two values that a setting or argument takes, as a recipe writes them."""
    branch = key.branches[0]
    units = key.setting.units
    if key.name in DIVIDING:
        return DIVIDING[key.name]
    if RowExpr in key.branches:
        return EXPRESSIONS.get(key.name) or MAPPED[COLUMNS[key.name]]
    if key.words and key.is_list:
        return f"[{key.words[0]}]", f"[{key.words[-1]}]"
    if key.words:
        return ("64" if int in key.branches else key.words[0]), key.words[-1]
    if key.choices:
        first, *_, last = (*key.choices.items(), *key.choices.items())
        return call(*first), call(*last)
    if branch is Amount:
        return (f"32 {units[0]}", f"64 {units[0]}") if units[0] != "fraction" else ("10%", "20%")
    if branch is Range:
        return ("10 .. 20", "10 .. 30") if key.setting.unit else ("10% .. 20%", "10% .. 30%")
    return _plain(key, branch)


def _plain(key: Key, branch: Any) -> tuple[str, str]:
    known: dict[Any, tuple[str, str]] = {
        bool: ("true", "false"),
        str: ('"a"', '"b"'),
        Expect: ("rows > 1", "rows > 2"),
        Enough: ("1 of (format_ok)", "2 of (format_ok)"),
        Prompt: ("style", "plain"),
        Hardware: ("pod", "2 * pod"),
        RowSets: ("[test]", "[test, hard]"),
        tuple[float, float]: ("[0.1, 0.2]", "[0.1, 0.3]"),
        tuple[str, ...]: ('["a"]', '["b"]'),
    }
    if key.name == "address":  # of a Ray cluster: not any text is one
        return '"auto"', '"head:6379"'
    if branch in known:
        return known[branch]
    if branch is int:
        low = int(1 if key.setting.ge is None else key.setting.ge)
        return (f"{low}", f"{low + 1}") if key.setting.le is not None else ("64", "128")
    if branch is float and (key.setting.gt or 0) >= 1:
        return f"{key.setting.gt or 0:g} + 0.5", f"{key.setting.gt or 0:g} + 0.25"
    if branch is float:
        return "0.5", "0.25"
    assert branch is Gpu, f"no values are known for {key.name}: {branch}"
    return "card", "card"


def call(word: str, choice: type[BaseModel], /, **given: str) -> str:
    """A choice with its required arguments, and those given."""
    args = {key.name: values(key)[0] for key in arguments(choice).values() if key.required} | given
    return f"{word}({', '.join(f'{name} = {value}' for name, value in args.items())})"


def cases_of(path: str, key: Key, stage: str | None, cls: SettingClass) -> Iterator[Case]:
    """The cases of a setting: its own values, those in its braces, each argument of each choice."""
    inside = {} if key.choices else key.inside
    if inside:
        for name, part in inside.items():
            yield from cases_of(f"{path}.{name}", part, stage, cls)
        return
    one, other = values(key)
    if one != other:
        yield Case(path, stage, cls, one, other)
    for word, model in key.choices.items():
        for name, argument in arguments(model).items():
            yield from argument_cases(path, word, model, name, argument, stage, cls)


def argument_cases(
    path: str,
    word: str,
    model: type[BaseModel],
    name: str,
    argument: Key,
    stage: str | None,
    cls: SettingClass,
) -> Iterator[Case]:
    """One argument of a choice, with two values."""
    own = FIELD_CLASS.get((model.__name__, name), cls)
    one, other = values(argument)
    if one != other:
        calls = (call(word, model, **{name: value}) for value in (one, other))
        yield Case(path, stage, own, *calls)


def cases() -> Iterator[Case]:
    """Every setting and clause of every kind and thing."""
    for kind, owner in OWNERS.items():
        stage = owner if kind in (*KINDS, "benchmark") else USERS.get(kind)
        for name, key in settings(kind).items():
            cls = class_of(kind, name, key)
            found = cases_of(f"{owner}.{name}", key, stage, cls)
            yield from (case for case in found if case.path not in UNSEEN)
        for word, key in clauses(kind).items():
            yield from clause_cases(kind, owner, word, key)


def class_of(kind: str, name: str, key: Key) -> SettingClass:
    """A stage's setting has a class of its own; that of a thing what holds the thing has, or less."""
    if kind not in HELD_BY:
        return key.setting.cls
    return FIELD_CLASS.get((kind.capitalize(), name), HELD_BY[kind])


def clause_cases(kind: str, owner: str, word: str, key: Key) -> Iterator[Case]:
    if key.choices and word == "from":
        yield from cases_of(f"{owner}.from", key, owner, key.setting.cls)
        return
    one, other = CLAUSES.get(f"{kind}.{word}") or CLAUSES[word]
    yield Case(f"{owner}.{word}", owner, key.setting.cls, one, other)


# ---- laws --------------------------------------------------------------------------------------

ALL = list(cases())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("settings")
    (found / "recipe.omr").write_text(BASE)
    (found / "rewards.py").write_text("def score(row):\n    return 1.0\n")
    return found


@cache
def planned(folder: Path, path: str, value: str) -> Plan:
    file = folder / "recipe.omr"
    beside = [f"{NEEDED[path]}"] if path in NEEDED else []
    recipe, found = load(file, [*beside, f"{path}={value}"])
    assert recipe is not None, [item.message for item in found]
    return make_plan(recipe, folder / "state", file, found, ())


def resolved(plan: Plan) -> str:
    """The plan without what was said about it."""
    return json.dumps(plan.model_dump(mode="json", exclude={"diagnostics"}), sort_keys=True)


def fingerprints(plan: Plan) -> dict[str, str]:
    return {stage.name: stage.fingerprint for stage in plan.stages}


@pytest.mark.parametrize("case", ALL, ids=str)
def test_a_setting_is_read_and_its_class_holds(case: Case, folder: Path) -> None:
    one, other = (planned(folder, case.path, value) for value in (case.one, case.other))
    assert resolved(one) != resolved(other), "the plan does not know of this setting"
    if case.stage is None:
        assert fingerprints(one) == fingerprints(other)
        return
    spec = next(stage.spec for stage in one.stages if stage.name == case.stage)
    moved = fingerprints(one)[case.stage] != fingerprints(other)[case.stage]
    assert moved == (case.cls in deciding_classes(spec)), f"class {case.cls}"


def test_every_setting_of_every_kind_has_a_case() -> None:
    tested = {".".join(case.path.split(".")[:2]) for case in ALL}
    declared = {f"{owner}.{name}" for kind, owner in OWNERS.items() for name in settings(kind)}
    declared |= {f"{owner}.{word}" for kind, owner in OWNERS.items() for word in clauses(kind)}
    assert declared - tested <= {"pod.gpu"}, "only a machine's GPU is set by what it is made of"


# ---- who reads -----------------------------------------------------------------------------------------------------


def models() -> Iterator[type[BaseModel]]:
    """Everything whose fields a recipe fills: kinds, things, choices, groups."""
    todo: list[type[BaseModel]] = [*KINDS.values(), *MODELS.values()]
    seen: set[type[BaseModel]] = set()
    while todo:
        model = todo.pop()
        if model in seen or model in (RowExpr, Expect):
            continue
        seen.add(model)
        yield model
        keys = [key for key in arguments(model).values() if not key.words]
        todo += [
            branch
            for key in keys
            for branch in key.branches
            if isinstance(branch, type) and issubclass(branch, BaseModel)
        ]


@cache
def words_read() -> frozenset[str]:
    """The attributes, patterns and quoted names in the code that acts on a plan: estimates, lints, passes, runtime."""
    files = [
        *ROOT.glob("omrlang/*.py"),
        *ROOT.glob("omrlang/estimate/*.py"),
        *ROOT.glob("omrlang/lints/*.py"),
        *ROOT.glob("omrlang/check/*.py"),
        *ROOT.glob("runtime/**/*.py"),
    ]
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Attribute(attr=attr):
                    found.add(attr)
                case ast.MatchClass(kwd_attrs=names):
                    found.update(names)
                case ast.Constant(value=str(text)):
                    found.add(text)
                case _:
                    pass
    return frozenset(found)


@pytest.mark.parametrize("model", list(models()), ids=lambda model: model.__name__)
def test_somebody_acts_on_every_field(model: type[BaseModel]) -> None:
    """Being in the plan is not enough: some code must ask for the field by name."""
    assert not set(model.model_fields) - words_read()
