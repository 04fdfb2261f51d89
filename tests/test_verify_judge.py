"""Judges through real engines: the OpenAI client against a server of this test, transformers with a tiny model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from verify_parts import PROMPT, REFEREE, ask, condition, either, row, table, work_order

from omr_runtime.errors import Resumable, RunError
from omr_runtime.stages import filter as stage
from omr_runtime.verify.asking import judge_opener
from omrlang.schema import Filter
from omrlang.types import Call, Fresh, Model, OpenAI, RowExpr, Transformers


class Referee(ThreadingHTTPServer):
    """A chat server that says yes to ``four``; ``answer`` may be changed; ``seen`` are the requests' bodies."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.reply: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Referee

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        text = body["messages"][-1]["content"]
        word = self.server.reply or ("yes" if text.endswith("four") else "no")
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": word},
        }
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [choice],
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Referee]:
    with Referee() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("REFEREE_URL", running.url)
        yield running
        running.shutdown()


REMOTE = REFEREE.model_copy(update={"engine": OpenAI(url_env="REFEREE_URL")})


def keep(model: Model = REMOTE) -> RowExpr:
    tree = either(ask("answer_matches"), Call(fn="judge", model=model))
    return condition(tree, "answer_matches or judge(referee)")


def spec(expr: RowExpr) -> Filter:
    return Filter(name="accepted", seed=7, rows="traces", keep=expr)


ROWS = [row("a-0", "4"), row("b-0", "four"), row("c-0", "five"), row("d-0", "four")]


def test_a_judge_behind_a_server(tmp_path: Path, server: Referee) -> None:
    work = work_order(spec(keep()), tmp_path, {"traces": ROWS})
    stage.run(work)
    assert [r["id"] for r in table(work, "row")] == ["a-0", "b-0", "d-0"]
    assert [d["row"] for d in table(work, "dropped")] == ["c-0"]
    assert len(server.seen) == 2, "the rules settled one row, two rows asked the same"
    body = server.seen[0]
    assert body["temperature"] == 0
    assert body["structured_outputs"] == {"choice": ["yes", "no"]}
    assert "<think>" not in body["messages"][-1]["content"]
    judged = [v for v in table(work, "verdict") if v["rule"] == "judge(referee)"]
    assert {(v["row"], v["ok"]) for v in judged} == {("b-0", True), ("c-0", False), ("d-0", True)}


def test_what_is_neither_yes_nor_no_is_asked_again(tmp_path: Path, server: Referee) -> None:
    server.reply = "I think they agree"
    work = work_order(spec(keep()), tmp_path, {"traces": ROWS})
    with pytest.raises(Resumable, match=r"3 rows are undecided.*neither yes nor no"):
        stage.run(work)
    server.reply = None
    stage.run(work)
    assert sorted(r["id"] for r in table(work, "row")) == ["a-0", "b-0", "d-0"]


def test_without_an_address_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFEREE_URL", raising=False)
    work = work_order(spec(keep()), tmp_path, {"traces": ROWS})
    with pytest.raises(RunError, match="REFEREE_URL is not set") as error:
        stage.run(work)
    assert error.value.exit_code == 1
    assert table(work, "row") == []


@pytest.mark.slow
def test_a_judge_in_process_says_yes_or_no(tmp_path: Path) -> None:
    tiny = Model(
        name="referee",
        source=Fresh(family="qwen2", layers=1, hidden=32, heads=2, vocabulary="characters"),
        precision="fp32",
        engine=Transformers(batch=4),
    )
    work = work_order(spec(keep(tiny)), tmp_path, {"traces": ROWS})
    judge = judge_opener(work)(tiny)
    opinions = judge.ask([("How many?", "4", text) for text in ("four", "five", "four")])
    judge.close()
    assert {opinion.ok for opinion in opinions} <= {True, False}, "the choice is constrained"
    assert opinions[0] == opinions[2]
    assert PROMPT.name == "short"
