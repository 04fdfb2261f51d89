"""vLLM itself, in process: it generates, seeds repeat, pushed weights give what a freshly started engine gives."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training_parts import fresh_folder

from omr_runtime.engines import vllm
from omr_runtime.engines.decode import Ask, Draw
from omr_runtime.errors import RunError
from omr_runtime.models import load_tokenizer
from omrlang.types import Vllm

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"
)


def test_as_many_at_once_as_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """And twice as many under way, whoever sized the engine."""
    limits = vllm.VllmLimits(64)
    for on_gpu, default in ((True, 256), (False, 64)):
        monkeypatch.setattr(vllm, "_has_gpu", lambda on_gpu=on_gpu: on_gpu)
        assert limits.at_once(Vllm()) == default
        assert limits.at_once(Vllm(max_num_seqs=512)) == 512
        assert vllm.VllmLimits(64, 4).at_once(Vllm()) == 4

    class Core:
        added = 0

        def add_request(self, *_: Any) -> None:
            Core.added += 1

    engine: Any = object.__new__(vllm.VllmEngine)
    engine.at_once, engine.num_requests = limits.at_once(Vllm(max_num_seqs=150)), 0
    engine.llm = SimpleNamespace(llm_engine=Core())
    ask = Ask([1, 2], tuple(range(1000)))
    samples = ((0, k, ask) for k in range(1000))
    monkeypatch.setattr(vllm, "_params", lambda *_: None)
    engine._top_up(samples, {}, Draw(1.0, 8, frozenset()), None)
    assert Core.added == 300


def test_an_engine_of_a_rank_stands_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM alone would take the first GPU of the machine in every process; one that is no rank is left alone."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert vllm._among_ranks() == {}
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert vllm._among_ranks() == {}
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert vllm._among_ranks() == {"distributed_executor_backend": "external_launcher"}


@needs_vllm
def test_what_stands_on_the_device_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM itself has it."""
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "3")
    executor = object.__new__(ExecutorWithExternalLauncher)
    assert executor._distributed_args()[1:] == (5, 3)


# One engine a process: vLLM does not give its memory back before the process ends.
SCRIPT = """
import json, sys
from pathlib import Path
from omr_runtime.engines.decode import Ask, Draw
from omr_runtime.engines.protocol import Decoding, Request
from omr_runtime.engines.vllm import VllmEngine, VllmLimits, weights_of
from omr_runtime.models import load_tokenizer
from omrlang.types import Prompt, Vllm

def main(folder, push, out):
    loaded = load_tokenizer(folder)
    engine = VllmEngine(loaded, "bf16", VllmLimits(2048, max_num_seqs=4), Vllm(max_num_batched_tokens=3_000))
    prompts = [loaded.tokenizer.encode(f"How many {what}?") for what in ("red", "green", "blue", "circles")]
    asks = [Ask(ids, tuple(range(10 * i, 10 * i + 3))) for i, ids in enumerate(prompts)]

    def roll(temperature, asks):
        found = []
        engine.roll(asks, Draw(temperature, 12, frozenset(loaded.stop_ids)), found.append)
        found.sort(key=lambda one: (one.ask, one.sample))
        return [[one.token_ids, one.logprobs, one.stopped] for one in found]

    scheduler = engine.llm.llm_engine.vllm_config.scheduler_config
    result = {"batched": scheduler.max_num_batched_tokens}
    result |= {"greedy": roll(0.0, asks), "drawn": roll(1.0, asks), "alone": roll(1.0, asks[2:3])}
    # More than one scheduler step reads: a prompt that was read in chunks would end a seeded engine.
    long = [Ask([5 + i] * 1500, (i,)) for i in range(4)]
    result["long"] = roll(1.0, long)
    row = {"id": "a", "question": "How many red?"}
    ask = Decoding(temperature=0.0, max_tokens=4, choices=("yes", "no"))
    said = []
    engine.generate([Request("a", row, Prompt(name="p"), (0,), (0,), ask)], said.append)
    result["choice"] = [said[0].text, said[0].finish]
    if push:
        engine.update_weights(weights_of(Path(push)))
        result["pushed"] = roll(0.0, asks)
        # As where workers are processes, here with the one worker that there is.
        engine.is_spread = True
        engine.update_weights(weights_of(Path(folder)))
        result["back"] = roll(0.0, asks)
    Path(out).write_text(json.dumps(result))
    engine.close()

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


# What the same prompts are answered by vLLM or by transformers; pictures in and out of a stage's bounds.
PICTURED = """
import json, sys
from pathlib import Path
import numpy
from PIL import Image
from omr_runtime import chat
from omr_runtime.engines.decode import Ask, Draw
from omr_runtime.engines.transformers import TransformersEngine
from omr_runtime.engines.vllm import VllmEngine, VllmLimits, weights_of
from omr_runtime.models import load, load_tokenizer
from omrlang.types import Prompt

def picture(height, width):
    noise = numpy.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    return Image.fromarray(noise)

def main(folder, push, out, name, most):
    ours = name == "transformers"
    loaded = load(Path(folder), "fp32", "cpu") if ours else load_tokenizer(Path(folder))
    asks = []
    several = [] if "onevision" in loaded.layout.config.model_type else [[(30, 200), (84, 56)]]
    for sizes in [(56, 56)], [(60, 130)], *several:
        row = {"id": "a", "question": "How many red circles?", "images": ["digest"] * len(sizes)}
        pictures = [picture(*size) for size in sizes]
        made = chat.encode_prompt(loaded, row, Prompt(name="p"), pictures, None, int(most) or None)
        asks.append(Ask(made.input_ids, (1,), made.images, made.unexpanded_text, tuple(made.shown), made.told))
    engine = TransformersEngine(loaded, 4) if ours else VllmEngine(loaded, "fp32", VllmLimits(2048, max_num_seqs=4))
    if push:
        engine.roll(asks, Draw(0.0, 2, frozenset(loaded.stop_ids)), [].append)  # what old weights see is not kept
        # As the trainer has them: under the names of the model in memory.
        engine.update_weights(load(Path(push), "fp32", "cpu").model.state_dict().items())
    found = []
    engine.roll(asks, Draw(0.0, 12, frozenset(loaded.stop_ids)), found.append)
    found.sort(key=lambda one: one.ask)
    Path(out).write_text(json.dumps([[one.token_ids, one.logprobs] for one in found]))
    engine.close()

if __name__ == "__main__":
    main(*sys.argv[1:])
"""

TORCHVISION = Path(sys.prefix) / "torchvision"
"""vLLM needs it for pictures, and num2words for SmolVLM's; it has no build for CPUs, so both lie apart, where no other test
finds them."""

NO_OPERATORS = """
import sys, types
name = "torchvision._meta_registrations"  # of operators that are compiled for GPUs alone
sys.modules[name] = types.ModuleType(name)
"""


def roll(tmp_path: Path, folder: Path, push: Path | None = None) -> dict[str, Any]:
    """What an engine of its own process says."""
    found: dict[str, Any] = run(tmp_path, SCRIPT, [], str(folder), str(push or ""))
    return found


def run(tmp_path: Path, text: str, beside: list[Path], folder: str, push: str, *more: str) -> Any:
    """What the script writes, which is told where after its first two arguments."""
    root, script = Path(__file__).parents[1], tmp_path / "script.py"
    script.write_text(text)
    out = tmp_path / "said.json"
    path = ":".join(map(str, [root, root / "runtime", *beside]))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "2"}
    argv = [sys.executable, str(script), folder, push, str(out), *more]
    result = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(out.read_text())


def text_model(folder: Path, seed: int) -> Path:
    made: Path = fresh_folder(folder, "qwen2", hidden=128, seed=seed)
    return made


@needs_vllm
@pytest.mark.slow
def test_pushed_weights_give_what_a_fresh_engine_gives(tmp_path: Path) -> None:
    one, other = text_model(tmp_path / "one", 3), text_model(tmp_path / "other", 4)
    old = roll(tmp_path, one, push=other)
    new = roll(tmp_path, other)
    assert new["batched"] == 3_000, "what the recipe says reaches the scheduler"
    assert [tokens for tokens, *_ in old["pushed"]] == [tokens for tokens, *_ in new["greedy"]]
    for (_, mine, _), (_, theirs, _) in zip(old["pushed"], new["greedy"], strict=True):
        assert mine == pytest.approx(theirs, abs=2e-2)
    assert [tokens for tokens, *_ in old["pushed"]] != [tokens for tokens, *_ in old["greedy"]]
    assert old["back"] == old["greedy"], (
        "also in parts, as an engine over several devices is given them"
    )
    assert len(old["drawn"]) == 12
    assert old["drawn"][6:9] == old["alone"]
    assert len(old["long"]) == 4
    assert old["choice"] == ["yes", "stop"] or old["choice"] == ["no", "stop"]
    for tokens, logprobs, stopped in old["drawn"]:
        assert len(tokens) == len(logprobs)
        assert stopped or len(tokens) == 12


def test_vision_models_without_torchvision_are_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = load_tokenizer(fresh_folder(tmp_path / "model"))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "torchvision" else found(name)
    )
    reason = vllm.refusal(parts)
    if vllm.is_installed():
        assert "engine = transformers() serves them" in str(reason)
    else:
        assert reason == "vLLM is not installed"


def test_what_vllm_would_show_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured: on a CPU Gemma 3's image tokens do not see those after them, and LLaVA-OneVision's several pictures are each cut
    into crops."""
    gemma, llava = (
        load_tokenizer(fresh_folder(tmp_path / family, family, hidden=128))
        for family in ("gemma3", "llava_onevision")
    )
    with monkeypatch.context() as all_installed:
        all_installed.setattr("importlib.util.find_spec", lambda name: object())
        assert "image tokens see each other" in str(vllm.refusal(gemma))
        assert vllm.refusal(llava) is None
    one, two = (Ask([1], (0,), None, "", ("picture",) * count) for count in (1, 2))
    assert list(vllm.checked(llava, [one])) == [one]
    with pytest.raises(RunError, match="each of several images as if it were alone"):
        list(vllm.checked(llava, [one, two]))


def test_asking_for_vllm_does_not_import_it() -> None:
    root = Path(__file__).parents[1]
    code = (
        "import sys; from omr_runtime.engines.vllm import is_installed; is_installed();"
        "sys.exit('vllm' in sys.modules)"
    )
    env = os.environ | {"PYTHONPATH": f"{root}:{root / 'runtime'}"}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "most"),
    [("qwen2_5_vl", 3_136), ("qwen3_vl", 0), ("llava", 0), ("llava_onevision", 0), ("smolvlm", 0)],
)
def test_pictures_are_seen_as_the_trainer_sees_them(tmp_path: Path, family: str, most: int) -> None:
    """Also with a stage's bounds of pixels, which vLLM's own image processor does not know, and after new weights."""
    one, other = (fresh_folder(tmp_path / name, family, hidden=128, seed=seed) for name, seed in (("one", 3), ("other", 4)))  # fmt: skip
    (tmp_path / "sitecustomize.py").write_text(NO_OPERATORS)
    apart = [tmp_path, TORCHVISION]
    ours = run(tmp_path, PICTURED, [], str(other), "", "transformers", str(most))
    theirs = run(tmp_path, PICTURED, apart, str(one), str(other), "vllm", str(most))
    assert [tokens for tokens, _ in theirs] == [tokens for tokens, _ in ours]
    for (_, mine), (_, said) in zip(ours, theirs, strict=True):
        assert said == pytest.approx(mine, abs=1e-3)
