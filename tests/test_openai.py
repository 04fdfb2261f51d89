"""The engine for OpenAI-compatible servers, against a small server of this file that speaks the protocol over real HTTP.

It is no language model: it answers what each test tells it to, so that failures can be had on demand. A slow test
below uses vLLM's own server.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from PIL import Image

from omr_runtime.engines import open_engine
from omr_runtime.engines.openai import OpenAIEngine, Retry, addresses, data_url
from omr_runtime.engines.protocol import Completion, Decoding, EngineDied, Request
from omr_runtime.errors import RunError
from omrlang.types import HfModel, Model, OpenAI, Prompt

Reply: TypeAlias = tuple[int, dict[str, Any] | bytes]
PROMPT = Prompt(name="short", system="Be brief.")
FAST = Retry(tries=3, first_wait_s=0.01)


class Server:
    """Answers each request with ``reply(body, number)``, a status and a JSON object; keeps what it was asked."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply]) -> None:
        self.reply, self.bodies, self.keys = reply, list[dict[str, Any]](), list[str]()
        self.lock = threading.Lock()
        self.open, self.most_open = 0, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self.lock:
            self.bodies.append(body)
            self.keys.append(handler.headers["authorization"])
            number = len(self.bodies)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            status, data = self.reply(body, number)
        finally:
            with self.lock:
                self.open -= 1
        if status == 0:  # break the connection instead of answering
            handler.close_connection = True
            return
        sent = data if isinstance(data, bytes) else json.dumps(data).encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(sent)))
        handler.end_headers()
        handler.wfile.write(sent)

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


Serve: TypeAlias = Callable[[Callable[[dict[str, Any], int], Reply]], Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(reply: Callable[[dict[str, Any], int], Reply]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def choice(text: str, reason: str = "stop", index: int = 0, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more}
    return {"index": index, "message": message, "finish_reason": reason}


def answer(*choices: dict[str, Any], tokens: int = 10) -> Reply:
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": list(choices), "usage": usage}  # fmt: skip


def answer_all(body: dict[str, Any], number: int) -> Reply:
    return answer(*(choice(f"{body['seed']}+{i}", index=i) for i in range(body["n"])))


def refuse(status: int, message: str = "no") -> Reply:
    return status, {"error": {"message": message, "type": "t", "code": status}}


def request(key: str = "q", n: int = 2, **more: Any) -> Request:
    row = {"id": key, "question": "How many?"} | more.pop("row", {})
    seeds = tuple(range(100, 100 + n))
    decoding = more.pop("decoding", Decoding(temperature=0.7, max_tokens=50))
    return Request(key, row, PROMPT, tuple(range(n)), seeds, decoding, **more)


def ask(
    server: Server, *requests: Request, retry: Retry = FAST, **settings: Any
) -> list[Completion]:
    found: list[Completion] = []
    OpenAIEngine([server.url], "served", retry=retry, **settings).generate(requests, found.append)
    return sorted(found, key=lambda completion: (completion.key, completion.index))


# ---- what is sent ----------------------------------------------------------------------------------------------


def test_all_samples_of_a_question_go_in_one_request(serve: Serve) -> None:
    server = serve(answer_all)
    found = ask(server, request(n=3), key="secret")
    assert [c.text for c in found] == ["100+0", "100+1", "100+2"]
    assert len(server.bodies) == 1
    body = server.bodies[0]
    assert (body["n"], body["temperature"], body["max_tokens"], body["model"]) == (
        3,
        0.7,
        50,
        "served",
    )
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
    ]
    assert server.keys == ["Bearer secret"]


def test_settings_of_open_servers_are_sent_only_where_they_are_set(serve: Serve) -> None:
    server = serve(answer_all)
    judged = Decoding(temperature=0, max_tokens=5, top_k=20, choices=("yes", "no"))
    ask(server, request(n=1), request("r", n=1, decoding=judged))
    plain, extra = sorted(server.bodies, key=len)
    assert "top_k" not in plain
    assert (extra["top_k"], extra["structured_outputs"]) == (20, {"choice": ["yes", "no"]})


def test_images_are_data_urls_before_the_text(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "0f"  # the store's files have no suffix
    Image.new("RGB", (20, 10), "red").save(path, "PNG")
    server = serve(answer_all)
    ask(server, request(n=1, row={"images": ["0f"]}, images=(path,)))
    image, text = server.bodies[0]["messages"][1]["content"]
    assert text == {"type": "text", "text": "How many?"}
    assert (
        image["image_url"]["url"]
        == f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    )


@pytest.mark.parametrize(
    ("low", "high", "size"), [(None, 800, (40, 20)), (20_000, None, (200, 100))]
)
def test_images_are_scaled_into_the_bounds(
    tmp_path: Path, low: int | None, high: int | None, size: tuple[int, int]
) -> None:
    path = tmp_path / "a"
    Image.new("RGB", (100, 50)).save(path, "JPEG")
    sent = base64.b64decode(data_url(path, low, high).partition(",")[2])
    with Image.open(io.BytesIO(sent)) as image:
        assert image.size == size


def test_an_image_that_cannot_be_read_fails_its_own_question_only(
    serve: Serve, tmp_path: Path
) -> None:
    gone = request("gone", row={"images": ["x"]}, images=(tmp_path / "x",))
    found = ask(serve(answer_all), gone, request("there", n=1))
    assert [(c.key, c.finish) for c in found] == [
        ("gone", "error"),
        ("gone", "error"),
        ("there", "stop"),
    ]


# ---- what comes back -------------------------------------------------------------------------------------------


def test_a_length_stop_is_a_result_and_a_filtered_answer_is_none(serve: Serve) -> None:
    server = serve(lambda body, _: answer(choice("long", "length"), choice("", "content_filter")))
    cut, filtered = ask(server, request())
    assert (cut.finish, cut.text, cut.error) == ("length", "long", None)
    assert (filtered.finish, filtered.error) == ("error", "the server ended it: content_filter")
    assert len(server.bodies) == 1


def test_tokens_are_shared_out_by_length_and_sum_to_what_the_server_counted(serve: Serve) -> None:
    server = serve(lambda body, _: answer(choice("x" * 30), choice("x" * 10), tokens=41))
    found = ask(server, request())
    assert sum(c.num_tokens for c in found) == 41
    assert found[0].num_tokens > 2 * found[1].num_tokens
    assert found[0].num_prompt_tokens == 7


def test_a_server_that_gives_fewer_choices_is_asked_for_the_rest(serve: Serve) -> None:
    server = serve(lambda body, _: answer(choice(str(body["seed"]))))
    found = ask(server, request(n=3))
    assert [(c.index, c.text) for c in found] == [(0, "100"), (1, "101"), (2, "102")]
    assert [body["n"] for body in server.bodies] == [3, 2, 1]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_that_the_server_took_apart_is_put_back(serve: Serve, field: str) -> None:
    server = serve(
        lambda body, _: answer(choice("<answer>2</answer>", **dict[str, Any]({field: "1 + 1\n"})))
    )
    (found,) = ask(server, request(n=1))
    assert found.text == "<think>1 + 1</think><answer>2</answer>"


# ---- what goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503, 408, 0])
def test_what_may_pass_is_tried_again(serve: Serve, status: int) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        return refuse(status) if number < 3 else answer_all(body, number)

    server = serve(reply)
    found = ask(server, request())
    assert [c.finish for c in found] == ["stop", "stop"]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_the_requests_own_fault_is_not_tried_again(serve: Serve, status: int) -> None:
    server = serve(lambda body, number: refuse(status, "prompt too long"))
    found = ask(server, request(n=2))
    assert [c.finish for c in found] == ["error", "error"]
    assert "prompt too long" in (found[0].error or "")
    assert len(server.bodies) == 1


def test_what_keeps_failing_is_recorded_with_its_reason_and_the_rest_goes_on(serve: Serve) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        bad = body["messages"][1]["content"] == "bad"
        return refuse(500, "out of luck") if bad else answer_all(body, number)

    found = ask(
        serve(reply),
        request("a", n=1),
        request("b", n=1, row={"question": "bad"}),
        request("c", n=1),
    )
    assert [c.finish for c in found] == ["stop", "error", "stop"]
    assert (found[1].error or "").startswith("3 tries: ")
    assert "out of luck" in (found[1].error or "")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "refuses the key in OPENAI_API_KEY"),
        (403, "refuses the key"),
        (404, "does not serve served"),
    ],
)
def test_what_every_request_would_meet_ends_the_stage_at_once(
    serve: Serve, status: int, message: str
) -> None:
    server = serve(lambda body, number: refuse(status))
    with pytest.raises(RunError, match=message):
        ask(server, *(request(str(i)) for i in range(20)), concurrency=1)
    assert len(server.bodies) == 1


def test_a_server_that_is_not_there_is_a_dead_engine() -> None:
    engine = OpenAIEngine(["http://127.0.0.1:9/v1"], "served", retry=FAST)
    with pytest.raises(EngineDied, match=r"http://127.0.0.1:9/v1 cannot be reached"):
        engine.generate([request()], lambda completion: None)


def test_a_server_that_dies_leaves_what_was_finished(serve: Serve) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        return answer_all(body, number) if number <= 4 else (0, b"")

    found: list[Completion] = []
    server = serve(reply)
    engine = OpenAIEngine([server.url], "served", concurrency=2, retry=FAST)
    with pytest.raises(EngineDied):
        engine.generate([request(str(i)) for i in range(10)], found.append)
    assert len(found) == 8


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"<html>hello</html>", "no JSON"),
        (b'{"error": {"message": "overloaded"}}', "overloaded"),
        (b"{}", "without choices"),
        (b"[1]", "without choices"),
        (b'{"choices": "\xff"}', "no JSON"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_something_that_is_no_chat_answer(serve: Serve, sent: bytes, reason: str) -> None:
    (found,) = ask(serve(lambda body, number: (200, sent)), request(n=1))
    assert found.finish == "error"
    assert reason in (found.error or "")


def test_half_a_character_in_an_answer_costs_neither_the_answer_nor_the_stage(serve: Serve) -> None:
    server = serve(lambda body, number: answer(choice("cut \ud83d"), choice("no", "error")))
    whole, filtered = ask(server, request(n=2))
    assert (whole.text, whole.finish) == ("cut \ufffd", "stop")
    assert filtered.finish == "error"
    refused = serve(lambda body, number: refuse(400, "too long: \ud83d"))
    (found,) = ask(refused, request(n=1))
    assert "too long" in (found.error or "")
    assert (found.error or "").encode()


def test_counts_that_cannot_be_true_are_none(serve: Serve) -> None:
    (found,) = ask(serve(lambda body, number: answer(choice("4"), tokens=10**30)), request(n=1))
    assert (found.text, found.num_tokens) == ("4", 0)


def test_a_password_in_an_address_stands_in_no_message() -> None:
    engine = OpenAIEngine(["http://me:secret@127.0.0.1:9/v1"], "m", retry=FAST)
    with pytest.raises(EngineDied, match=r"http://127\.0\.0\.1:9/v1 cannot be reached") as caught:
        engine.generate([request()], lambda completion: None)
    assert "secret" not in str(caught.value)


# ---- the load --------------------------------------------------------------------------------------------------


def test_as_many_requests_as_allowed_are_open_and_no_barrier_holds_them(serve: Serve) -> None:
    """The first answer comes after all others."""
    others = threading.Semaphore(0)
    seen: list[bool] = []

    def reply(body: dict[str, Any], number: int) -> Reply:
        if number == 1:
            seen.append(all(others.acquire(timeout=20) for _ in range(39)))
        else:
            time.sleep(0.05)
            others.release()
        return answer_all(body, number)

    server = serve(reply)
    found = ask(server, *(request(str(i), n=1) for i in range(40)), concurrency=4)
    assert len(found) == 40
    assert server.most_open == 4
    assert seen == [True]


def test_several_addresses_share_the_load(serve: Serve) -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        time.sleep(0.02)
        return answer_all(body, number)

    one, two = serve(reply), serve(reply)
    engine = OpenAIEngine([one.url, two.url], "served", concurrency=4)
    engine.generate([request(str(i)) for i in range(20)], lambda completion: None)
    assert len(one.bodies) + len(two.bodies) == 20
    assert min(len(one.bodies), len(two.bodies)) >= 5


# ---- what the recipe says --------------------------------------------------------------------------------------


def test_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFEREE_URL", "http://a/v1, http://b/v1")
    assert addresses(OpenAI(url_env="REFEREE_URL")) == ["http://a/v1", "http://b/v1"]
    monkeypatch.delenv("REFEREE_URL")
    with pytest.raises(RunError, match="the environment variable REFEREE_URL is not set"):
        addresses(OpenAI(url_env="REFEREE_URL"))


def test_the_key_comes_from_the_environment_and_stands_in_no_plan(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = serve(answer_all)
    monkeypatch.setenv("MY_KEY", "s3cret")
    settings = OpenAI(url=server.url, key_env="MY_KEY")
    model = Model(name="teacher", source=HfModel(id="org/big"), engine=settings)
    engine = open_engine(model, state=tmp_path)
    engine.generate([request(n=1)], lambda completion: None)
    assert server.keys == ["Bearer s3cret"]
    assert server.bodies[0]["model"] == "org/big"
    assert "s3cret" not in model.model_dump_json()


def test_a_trained_model_cannot_be_asked_of_a_server(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot serve a model that this recipe trains"):
        open_engine(tmp_path, OpenAI(url="http://a/v1"), state=tmp_path)
