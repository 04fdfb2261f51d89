"""A recipe on a Ray cluster: the language, what a person is told without one, and runs on two nodes of which one dies."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from plans import PROMPT, TEACHER, TINY

from omr_runtime.cluster.connect import connect
from omr_runtime.cluster.crew import Craft, Crew, Need
from omr_runtime.cluster.orders import SamplingOrder, files_below, images_of
from omr_runtime.cluster.sampling import narrowed, need_of, num_engines
from omr_runtime.engines import open_engine
from omr_runtime.engines.protocol import Completion, Decoding, Request
from omr_runtime.errors import RunError
from omr_runtime.models import materialise
from omr_runtime.store import ImageStore
from omr_runtime.synthetic import shapes
from omr_runtime.work import Shards, read_table
from omrlang.check.clusters import is_address
from omrlang.cli import main
from omrlang.cli.run import _cluster
from omrlang.plan import Plan
from omrlang.types import Gpu, Hardware, OpenAI, Transformers, Vllm
from omrlang.types.models import Ray

ROOT = Path(__file__).parents[1]

HOSTS = ("127.0.0.2", "127.0.0.3")
"""Ray takes 127.0.0.1 for the machine's outer address; these are loopback too, and two nodes can have one each."""

RECIPE = """\
omr 1

use std.formats

seed = 7

model teacher = scripted("shapes", right = 70%)

source puzzles from synthetic("shapes", n = 400, seed = 11)

sample traces from puzzles with teacher ON {
  n           = 3
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

filter accepted from traces ON {
  keep    = format_ok and answer_matches
  at_most = 1 per parent
}
"""

TRAINED = """
model tiny = fresh("qwen2", layers = 1, hidden = 32, heads = 2)

sft cold_start from accepted with tiny on ray("auto") {
  prompt = formats.think_answer_short
  pack   = 1_024
  batch  = 1 pack
  epochs = 1
  lr     = constant(1e-4)
}
"""


def run(folder: Path, recipe: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """``omr run`` over the recipe in a folder, with its state there; exit code and all that was printed."""
    folder.mkdir(exist_ok=True)
    (folder / "a.omr").write_text(recipe)
    roots = os.pathsep.join([str(ROOT), str(ROOT / "runtime")])
    env = {**os.environ, "PYTHONPATH": roots, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "omrlang", "run", "a.omr", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=400)
    return done.returncode, done.stdout + done.stderr


def tables(folder: Path, name: str, *keys: str) -> dict[str, list[dict[str, Any]]]:
    """All lines of a table by artifact, in the order of the keys. Parts may have come in any order."""
    found = {}
    for artifact in sorted((folder / ".omr" / "store").iterdir()):
        shards = Shards(artifact).read()
        lines = [line for s in shards if name in s.files for line in read_table(s.files[name])]
        if lines:
            found[artifact.name] = sorted(lines, key=lambda line: [line[key] for key in keys])
    return found


# ---- without a cluster ---------------------------------------------------------------------------------------------


def test_addresses() -> None:
    assert is_address("ray://head.example:10001")
    assert not is_address("ray://head.example")
    assert _cluster("auto") == Ray(address="auto")
    with pytest.raises(argparse.ArgumentTypeError, match="no address of a cluster"):
        _cluster("http://head:80")


def test_what_cannot_stand_on_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "a.omr"
    recipe.write_text(RECIPE.replace("ON", 'on ray("head")'))
    assert main(["check", str(recipe)]) == 1
    assert 'no cluster has the address "head"' in capsys.readouterr().err
    recipe.write_text(RECIPE.replace(" ON", "") + TRAINED)
    assert main(["check", str(recipe)]) == 1
    assert "sft `cold_start` trains on machines of its own, not on a Ray cluster" in (
        capsys.readouterr().err
    )


def test_a_cluster_moves_no_fingerprint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = []
    for place in ("", 'on ray("auto", engines = 3)'):
        Path("a.omr").write_text(RECIPE.replace(" ON", f" {place}".rstrip()))
        assert main(["plan", "a.omr", "--json"]) == 0
        plan = Plan.model_validate_json(capsys.readouterr().out)
        names.append([stage.fingerprint for stage in plan.stages])
    assert names[0] == names[1]
    moved = plan.on(Ray(address="head:6379"))
    cluster = [getattr(stage.spec, "hardware", None) for stage in moved.stages]
    assert cluster[0] is None
    assert cluster[1].cluster == Ray(address="head:6379", engines=3)


def test_a_worker_needs_what_its_engine_does() -> None:
    gpu = Gpu(name="big", memory_gib=80, tflops=900, bandwidth_tb_s=3)
    pool = Hardware(name="pool", gpu=gpu, count=8, cluster=Ray(address="auto"))
    spread = Vllm(tensor_parallel=4)
    assert need_of(pool, TINY, spread) == Need(gpus=4)
    assert num_engines(pool, Need(gpus=4)) == 2
    assert need_of(pool, TINY, None) == Need(gpus=1)
    assert need_of(pool, TINY, OpenAI(url="http://127.0.0.1:1")) == Need()
    assert need_of(pool, TEACHER, None) == Need()
    alone = Hardware(name="ray", count=1, cluster=Ray(address="auto"))
    assert need_of(alone, TINY, spread) == Need()
    assert num_engines(alone, Need()) is None


def test_what_is_left_of_a_request_keeps_its_seeds() -> None:
    request = Request("k", {}, PROMPT, (0, 1, 2), (10, 11, 12), Decoding(1.0, 8))
    left = narrowed(request, frozenset({0, 2}))
    assert (left.indices, left.seeds) == ((0, 2), (10, 12))


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"pip install 'omrlang\[ray\]'"):
        connect(Ray(address="auto"))


def test_an_address_that_nobody_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_HEAD", raising=False)
    with pytest.raises(RunError, match="NO_SUCH_HEAD is not set"):
        connect(Ray(address_env="NO_SUCH_HEAD"))


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there(scheme: str) -> None:
    with socket.socket() as probe:
        probe.bind((HOSTS[0], 0))
        address = f"{scheme}{HOSTS[0]}:{probe.getsockname()[1]}"
    with pytest.raises(RunError, match=rf"{address} cannot be reached"):
        connect(Ray(address=address))


@pytest.mark.slow
def test_a_port_that_is_silent_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.create_server((HOSTS[0], 0)) as silent:
        address = f"{HOSTS[0]}:{silent.getsockname()[1]}"
        place = f'on ray("{address}", wait = 6 s)'
        started = time.monotonic()
        code, said = run(tmp_path / "a", RECIPE.replace("ON", place))
    assert code == 1
    assert f"the Ray cluster at {address} did not answer within 6 s" in said
    assert time.monotonic() - started < 120


# ---- two nodes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real cluster of two nodes on this machine, on loopback addresses only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        roots = [str(ROOT), str(ROOT / "runtime")]
        patch.setenv("PYTHONPATH", os.pathsep.join(roots))
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "node_ip_address": HOSTS[0]}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=1, node_ip_address=HOSTS[1])
        try:
            yield made
        finally:
            import ray

            ray.shutdown()
            made.shutdown()


@pytest.mark.slow
def test_the_rows_are_those_of_a_run_without_ray(cluster: Any, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    place = f'on ray("{cluster.address}")'
    assert run(here, RECIPE.replace(" ON", ""))[0] == 0
    code, said = run(there, RECIPE.replace("ON", place))
    assert code == 0, said
    assert "raylet" not in said
    assert "INFO" not in said
    for table, keys in (("row", ("id",)), ("verdict", ("row", "rule")), ("dropped", ("row",))):
        assert tables(there, table, *keys) == tables(here, table, *keys)
    log = (there / ".omr" / "logs" / "traces.log").read_text()
    assert log.count("is ready: scripted 1") >= 1
    assert "nothing to do" in run(there, RECIPE.replace("ON", place))[1]
    assert "nothing to do" in run(here, RECIPE.replace(" ON", ""), "--on", cluster.address)[1]
    assert "nothing to do" in run(there, RECIPE.replace(" ON", ""))[1]


@pytest.mark.slow
def test_no_room_is_said_in_time(cluster: Any, tmp_path: Path) -> None:
    place = "on 2 * pool"
    declared = (
        "gpu big { memory = 80 GiB, compute = 900 TFLOP / s, bandwidth = 3 TB / s }\n"
        f'hardware pool = big {{ count = 1, cluster = ray("{cluster.address}", wait = 5 s) }}\n'
        'model tiny = fresh("qwen2_5_vl", layers = 1, hidden = 32, heads = 2, vision_layers = 1, '
        "vision_hidden = 32) { precision = fp32, engine = transformers() }\n"
    )
    recipe = RECIPE.replace("source puzzles", declared + "source puzzles")
    recipe = recipe.replace("with teacher ON", f"with tiny {place}").replace(" ON", "")
    code, said = run(tmp_path / "a", recipe, "--accept-limits")
    assert code == 1
    assert "has no room for a worker after 5 s: one needs 1 CPU and 1 GPU on one node" in said


@pytest.mark.slow
def test_a_node_that_does_not_see_the_state_folder_is_sent_what_it_needs(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real model, weights and images of which go over the cluster: the texts are those of the engine in process."""
    seen = Crew._greeted
    monkeypatch.setattr(
        Crew, "_greeted", lambda self, who, says: seen(self, who, replace(says, sees=False))
    )
    folder, requests = materialise(TINY, tmp_path), list(_asked(tmp_path, 6))
    order = SamplingOrder(None, str(folder), Transformers(batch=4), 8, str(tmp_path), str(tmp_path))
    assert {name for name, _ in order.parcel()} == {
        name for name, _ in files_below(folder, "model")
    }
    craft: Craft[Request] = Craft(
        order, Need(), 16, lambda request: request.indices, narrowed, images_of
    )
    crew: Crew[Request] = Crew(Ray(address=cluster.address), craft, tmp_path, 2)
    try:
        there = [completion for _, _, completion in crew.work(requests)]
    finally:
        crew.close()
    here: list[Completion] = []
    open_engine(folder, Transformers(batch=4), state=tmp_path, max_tokens=8).generate(
        requests, here.append
    )
    assert {(c.key, c.index): c.text for c in there} == {(c.key, c.index): c.text for c in here}
    assert len(there) == 12
    assert {c.finish for c in there} <= {"stop", "length"}


def _asked(state: Path, number: int) -> Iterator[Request]:
    """Two samples of each of some drawn puzzles."""
    images = ImageStore(state)
    for i, puzzle in enumerate(shapes.draw(number, seed=3)):
        name = images.put(shapes.picture(shapes.invent(3, i)))
        row = {"question": puzzle["question"], "images": [name]}
        yield Request(
            f"q{i}", row, PROMPT, (0, 1), (2 * i, 2 * i + 1), Decoding(1.0, 8), (images.path(name),)
        )


KEY = "sk-nobody-may-read-this-7f3a"
PATIENT = """omr 1

use std.formats

seed = 7

model teacher = hf("some/teacher") {
  engine = openai(env("TEACHER_URL"), key_env = "TEACHER_KEY", concurrency = 8)
}

source puzzles from synthetic("shapes", n = 120, seed = 11)

sample traces from puzzles with teacher on ray(env("RAY_HEAD")) {
  n           = 3
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

filter accepted from traces on ray(env("RAY_HEAD")) { keep = format_ok }
"""


class Teacher(ThreadingHTTPServer):
    """Answers with the seed that it was asked with; once ``hold_after`` requests have come it holds all that follow until
    ``go`` is set, so that leases are out for certain."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hold_after: int) -> None:
        super().__init__((HOSTS[0], 0), _Answer)
        self.hold_after, self.go, self.lock = hold_after, threading.Event(), threading.Lock()
        self.asked: Counter[int] = Counter()
        self.held = 0
        self.keys: set[str | None] = set()


class _Answer(BaseHTTPRequestHandler):
    server: Teacher

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.keys.add(self.headers["Authorization"])
            self.server.asked[body["seed"]] += 1
            holds = self.server.asked.total() > self.server.hold_after
            self.server.held += holds
        if holds:
            self.server.go.wait(120)
        answers = range(body.get("n") or 1)
        text = "<think>seed {}</think><answer>1</answer>"
        choices = [
            {
                "index": i,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text.format(body["seed"] + i)},
            }
            for i in answers
        ]
        usage = {"prompt_tokens": 5, "completion_tokens": 7 * len(answers), "total_tokens": 12}
        made = {
            "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": choices, "usage": usage,
        }  # fmt: skip
        data = json.dumps(made).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


@pytest.mark.slow
def test_a_node_that_is_killed_while_it_holds_a_lease(cluster: Any, tmp_path: Path) -> None:
    teacher = Teacher(hold_after=40)
    threading.Thread(target=teacher.serve_forever, daemon=True).start()
    environment = {
        "TEACHER_URL": f"http://{HOSTS[0]}:{teacher.server_port}/v1",
        "TEACHER_KEY": KEY,
        "RAY_HEAD": cluster.address,
    }
    ended: list[tuple[int, str]] = []
    driver = threading.Thread(
        target=lambda: ended.append(run(tmp_path / "a", PATIENT, **environment))
    )
    driver.start()
    log = tmp_path / "a" / ".omr" / "logs" / "traces.log"
    _wait_for(lambda: log.exists() and log.read_text().count("is ready: openai") == 2)
    _wait_for(lambda: teacher.held >= 16)  # eight of each of two engines
    (node,) = [node for node in cluster.worker_nodes if node.node_ip_address == HOSTS[1]]
    cluster.remove_node(node, allow_graceful=False)
    _wait_for(lambda: "is lost" in log.read_text())
    teacher.go.set()
    driver.join(300)
    code, said = ended[0]
    assert code == 0, said
    (folder,) = (tmp_path / "a" / ".omr" / "store" / "samples").iterdir()
    samples = [line for part in folder.glob("part-*.parquet") for line in read_table(part)]
    keys = Counter((line["key"], line["index"]) for line in samples)
    assert len(keys) == 120 * 3
    assert set(keys.values()) == {1}
    assert len({line["text"] for line in samples}) == 120 * 3
    lost = re.search(r"is lost .*; ([0-9]+) parts go to others", log.read_text())
    assert lost is not None
    assert int(lost[1]) > 0
    asked = teacher.asked.total()
    again = run(tmp_path / "a", PATIENT, **environment)
    assert again[0] == 0
    assert "nothing to do" in again[1]
    assert teacher.asked.total() == asked
    _no_secret_in(tmp_path / "a", Path(cluster.head_node.get_session_dir_path()))
    assert teacher.keys == {f"Bearer {KEY}"}


def _wait_for(what: Any, limit_s: float = 180) -> None:
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.1)


def _no_secret_in(*folders: Path) -> None:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert KEY.encode() not in path.read_bytes(), path
