"""The OpenAI engine against a real server: ``vllm serve`` on this machine's CPU, with a tiny Llama of random weights."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from omr_runtime.engines.openai import OpenAIEngine
from omr_runtime.engines.protocol import Completion, Decoding, EngineDied, Request
from omr_runtime.errors import RunError
from omr_runtime.models.vocabulary import make_tokenizer
from omrlang.types import Prompt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
START_S = 240
SAMPLED = Decoding(temperature=1.0, max_tokens=6)


def tiny_llama(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer("shapes")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    folder = tmp_path_factory.mktemp("served")
    tiny_llama(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port),
               "--host", "127.0.0.1", "--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager",
               "--max-model-len", "128", "--max-num-seqs", "8"]  # fmt: skip
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, f"the server ended: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"no server within {START_S} s: {log.read_text()[-2000:]}")


def ask(url: str, *requests: Request, model: str = "tiny") -> list[Completion]:
    found: list[Completion] = []
    OpenAIEngine([url], model, concurrency=4).generate(requests, found.append)
    return sorted(found, key=lambda completion: (completion.key, completion.index))


def request(key: str, indices: tuple[int, ...] = (0, 1, 2, 3), question: str = "How many red?", decoding: Decoding = SAMPLED) -> Request:  # fmt: skip
    seeds = tuple(1000 + index for index in indices)
    return Request(
        key, {"id": key, "question": question}, Prompt(name="p"), indices, seeds, decoding
    )


def test_a_real_server(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    """One server for all, since its start is what takes long."""
    url, _ = server
    judged = Decoding(temperature=0, max_tokens=5, choices=("yes", "no"))
    found = ask(
        url,
        request("a"),
        request("b", (0,), decoding=judged),
        request("c", (0,), question="x" * 500),
    )
    samples, verdict, refused = found[:4], found[4], found[5]
    assert [c.index for c in samples] == [0, 1, 2, 3]
    assert {c.finish for c in samples} <= {"stop", "length"}
    assert 4 <= sum(c.num_tokens for c in samples) <= 24
    assert len({c.text for c in samples}) > 1
    assert verdict.text in ("yes", "no")
    assert refused.finish == "error"
    assert "128" in (refused.error or ""), "the server's own reason: the prompt is too long"


def test_a_sample_asked_for_alone_is_the_one_of_the_whole_group(
    server: tuple[str, subprocess.Popen[bytes]],
) -> None:
    """The server numbers the samples of one request itself; so raising n later gives what n at once would have."""
    whole = ask(server[0], request("a"))
    later = ask(server[0], request("a", (2, 3)))
    assert [c.text for c in later] == [c.text for c in whole[2:]]


def test_a_model_that_is_not_served(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    with pytest.raises(RunError, match="does not serve other"):
        ask(server[0], request("a"), model="other")


def test_a_server_that_is_killed(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, process = server
    os.killpg(process.pid, 9)
    process.wait()
    engine = OpenAIEngine([url], "tiny")
    engine.retry = type(engine.retry)(tries=2, first_wait_s=0.1)
    with pytest.raises(EngineDied, match="cannot be reached"):
        engine.generate([request("a")], lambda completion: None)
