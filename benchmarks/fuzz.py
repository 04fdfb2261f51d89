"""Bytes, bred by a coverage-guided engine, to a plan or diagnostics: what gives a traceback, hangs or breaks a law is kept.

    pip install atheris                                   # CPython 3.11 to 3.13 on Linux; nothing else needs it
    python benchmarks/fuzz.py FOLDER [--runs 200000] [--seconds 240]

Seeds are the shipped recipes, their statements one by one, and every recipe fenced in the documentation and the tests.
Each input goes through `load` (parse, resolve, check, lint), the formatter, and for what checks `make_plan` and the
plan's text and JSON. FOLDER keeps the corpus and what was found, and a second call goes on where the first one ended.
An input cannot leave the folder: whatever it names outside is refused by an audit hook as if it could not be read.
"""

from __future__ import annotations

import argparse
import gc
import random
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import atheris
import re2  # noqa: F401 - the checker imports it when a pattern is met, and then the sandbox would refuse it

ROOT = Path(__file__).parents[1]
MAX_LENGTH = 2_048
SLOW_S = 5.0
BASE = "base.omr"
_FENCE = re.compile(r"^```omr[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DECLARED = re.compile(r"^[a-z]+ (\w+) (?:from|=)", re.MULTILINE)
_TOKEN = re.compile(rb'"""[\s\S]*?"""|"[^"\n]*"|\#[^\n]*|\w+|\s+|[^\w\s]')
_STATEMENT = re.compile(rb"^(?=[A-Za-z_])", re.MULTILINE)

with atheris.instrument_imports(include=["omrlang"]):
    from omrlang.check.fill import keys_of
    from omrlang.cli.plan_text import plan_text
    from omrlang.compiler import load
    from omrlang.diagnostics import Reporter
    from omrlang.format import format_text
    from omrlang.functions import COLUMNS, FUNCTIONS
    from omrlang.lower import lower
    from omrlang.parse import parse
    from omrlang.pins import Pins
    from omrlang.planning import make_plan
    from omrlang.render import concise, render
    from omrlang.schema import KINDS
    from omrlang.source import SourceFile
    from omrlang.types import UNITS


# ---- what an input has to keep -----------------------------------------------------------------


def promise(data: bytes, folder: Path) -> bool:
    """Whether it is a recipe. Raises where a promise of the language is broken."""
    path = folder / "x.omr"
    path.write_bytes(data)
    found, diagnostics = load(path)
    assert (found is None) == any(item.severity == "error" for item in diagnostics)
    assert render(diagnostics) or not diagnostics
    assert all(concise(item) for item in diagnostics)
    text = data.decode("utf-8-sig", "replace")
    once = format_text(text)
    assert comments(once) == comments(text), "formatting moved or lost a comment"
    assert format_text(once) == once, "formatting twice is not once"
    if found is None:
        return False
    plan = make_plan(found, folder / "state", path)
    assert plan_text(plan, 100)
    assert plan.model_dump_json()
    marks = [stage.fingerprint for stage in plan.stages]
    path.write_text(once)
    again, said = load(path)
    assert again is not None, f"the formatted text is refused: {render(said)}"
    assert [stage.fingerprint for stage in lower(again, Pins.open(folder, folder))] == marks
    return True


def comments(text: str) -> list[str]:
    return [comment.text for comment in parse(SourceFile(Path("-"), text), Reporter()).comments]


class Findings:
    """Counts inputs and keeps one of each way to fail, named by where it failed."""

    def __init__(self, folder: Path) -> None:
        self.scratch = folder.resolve() / "scratch"
        self.kept = folder / "findings"
        self.count = folder / "count"
        self.begun = int(self.count.read_text()) if self.count.exists() else 0
        self.done = self.checked = 0
        for made in (self.scratch, self.kept):
            made.mkdir(parents=True, exist_ok=True)
        # What an input may amend and use.
        shutil.copy(ROOT / "pipelines" / "quickstart.omr", self.scratch / BASE)

    def __call__(self, data: bytes) -> None:
        started = time.perf_counter()
        error = self.broken(data)
        if error is not None:
            self.keep(data, _signature(error), "".join(traceback.format_exception(error)))
        seconds = time.perf_counter() - started
        if seconds > SLOW_S:
            self.keep(data, "slow", f"{seconds:.1f} s for {len(data):,} bytes\n")
        self.done += 1
        if self.done % 100 == 0:
            self.count.write_text(str(self.begun + self.done))

    def broken(self, data: bytes) -> Exception | None:
        """What an input raised."""
        Sandbox.scratch = str(self.scratch)
        try:
            self.checked += promise(data, self.scratch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return error
        finally:
            Sandbox.scratch = None
        return None

    def keep(self, data: bytes, signature: str, why: str) -> None:
        path = self.kept / signature
        if not path.exists() or path.stat().st_size > len(data):
            path.write_bytes(data)
            path.with_suffix(".why").write_text(why)
            print(f"found: {why.strip().splitlines()[-1][:200]}  ({path})", file=sys.stderr)


def _signature(error: Exception) -> str:
    """The place in the language where it broke; a recursion's is not stable, so its kind is enough."""
    if isinstance(error, RecursionError):
        return "RecursionError"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "omrlang" in frame.filename] or list(frames)
    return f"{type(error).__name__}-{Path(own[-1].filename).stem}-{own[-1].lineno}"


class Sandbox:
    """While an input is tried, files outside the scratch folder, processes and sockets are out of reach."""

    scratch: str | None = None
    readable = (str(ROOT), sys.prefix, sys.base_prefix)
    forbidden = ("subprocess.", "os.system", "os.exec", "os.spawn", "os.fork", "socket.")

    @classmethod
    def hook(cls, event: str, arguments: tuple[object, ...]) -> None:
        if cls.scratch is None:
            return
        if event.startswith(cls.forbidden):
            raise PermissionError(13, "not while fuzzing")
        if event in ("open", "os.scandir", "os.listdir", "os.mkdir", "os.remove", "os.rename"):
            path = str(arguments[0])
            reads = event in ("os.scandir", "os.listdir") or (
                event == "open" and arguments[1] in ("r", "rb", None)
            )
            inside = (cls.scratch, *cls.readable) if reads else (cls.scratch,)
            if not Path(path).resolve().is_relative_to(cls.scratch) and not path.startswith(inside):
                raise PermissionError(13, "not while fuzzing")


# ---- seeds and mutations -----------------------------------------------------------------------


def seeds() -> Iterator[bytes]:
    """Shipped recipes, each of their statements under the file's `use` lines, and every fenced recipe."""
    for path in sorted(
        [
            *(ROOT / "pipelines").rglob("*.omr"),
            *(ROOT / "stdlib").rglob("*.omr"),
            *(ROOT / "tests").rglob("*.omr"),
        ]
    ):
        text = path.read_bytes()
        yield text
        yield text.replace(b"\n", b"\r\n")
        statements = _STATEMENT.split(text)
        head = b"".join(part for part in statements if part.startswith((b"omr", b"use", b"let")))
        yield from (head + part for part in statements)
    for page in sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
    ):
        yield from (match[1].encode() for match in _FENCE.finditer(page.read_text()))
    for name in _DECLARED.findall((ROOT / "pipelines" / "quickstart.omr").read_text()):
        yield f'amend "{BASE}"\nbecause "why"\n\n{name} {{ seed = 3 }}\n'.encode()
    yield b"let a = " + b"(" * 70 + b"1" + b")" * 70
    yield b"\xef\xbb\xbfomr 1\r\n\x00\xff\xfe" + 'let é = "\N{SNOWMAN}\u2028"\n'.encode()
    yield b"seed = 1e30\nlet a = 9" + b"9" * 500 + b"\n# " + b"x" * 5_000


STATEMENTS = (
    "model gpu hardware prompt benchmark verifier budget let use seed amend because allow omr"
)
SIGNS = (
    *("\n", "\n  ", "\r\n", *"{}[](),:=", " = ", "..", "#", '"', '"""'),
    *("\\", "\0", "\t", "\ufeff", "\u2028", "é", *"-*/.", "<=", "=="),
)
NUMBERS = (
    *("1", "0", "-1", "1e30", "1e31", "20%", "$3 / gpu_hour", "4 per parent", "1 pack / gpu"),
    *("9" * 40, "b" * 300, "1e-400", "0.5"),
)
VALUES = (
    *("none", "true", "all", "null", '"x"', '"""y"""', "sweep(1, 2)", "default", "unpublished"),
    *('env("X")', f'"{BASE}"', f'amend "{BASE}"\n', f'use "{BASE}" as base\n'),
    *("extra.x", "x", "a", "b"),
)
MODULES = "std.models std.gpus std.formats std.sources std.benchmarks"
BETWEEN = "from with on and or not in is matches as"


def words() -> list[bytes]:
    """Everything that the language knows by name, and what people and machines get wrong."""
    keys = [key for kind in KINDS.values() for key in keys_of(kind)]
    found = [*keys, *KINDS, *STATEMENTS.split(), *SIGNS, *NUMBERS, *VALUES, *MODULES.split()]
    found += [*FUNCTIONS, *COLUMNS, *UNITS, *BETWEEN.split()]
    return [word.encode() for word in dict.fromkeys(found)]


class Mutator:
    """Half of the time bytes as the engine likes, half of the time whole tokens and statements."""

    def __init__(self, pool: list[bytes]) -> None:
        self.words = words()
        self.pieces = sorted(
            {part for text in pool for part in _STATEMENT.split(text) if len(part) < 1_000}
        )

    def __call__(self, data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = rng.choice((self.token, self.token, self.token, self.statement))(data, rng)
        return data[:max_size]

    def token(self, data: bytes, rng: random.Random) -> bytes:
        """One token deleted, doubled, replaced, swapped, or one put before it."""
        tokens = _TOKEN.findall(data) or [b""]
        at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        word = rng.choice(self.words)
        change: Callable[[], None] = rng.choice((
            lambda: tokens.__setitem__(at, b""),
            lambda: tokens.__setitem__(at, word),
            lambda: tokens.__setitem__(at, tokens[other]),
            lambda: tokens.insert(at, word),
            lambda: tokens.insert(at, tokens[other]),
            lambda: tokens.__setitem__(slice(at, at + 1), tokens[at : at + 8] * 2),
        ))  # fmt: skip
        change()
        return b"".join(tokens)

    def statement(self, data: bytes, rng: random.Random) -> bytes:
        """One statement deleted, moved, doubled, or one of another recipe put in."""
        parts = _STATEMENT.split(data)
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        change: Callable[[], object] = rng.choice((
            lambda: parts.pop(at),
            lambda: parts.insert(other, parts.pop(at)),
            lambda: parts.insert(at, parts[other]),
            lambda: parts.insert(at, rng.choice(self.pieces)),
        ))  # fmt: skip
        change()
        return b"".join(parts)


def main() -> None:
    """Fuzz; the engine ends the process, so what was counted and found lies in the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200_000, help="inputs of this call")
    parser.add_argument("--seconds", type=int, default=0, help="end after so long; 0 is never")
    args = parser.parse_args()
    corpus = args.folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    pool = [*seeds()]
    for text in pool:
        (corpus / sha256(text).hexdigest()[:16]).write_bytes(text)
    sys.addaudithook(Sandbox.hook)
    options = [
        f"-runs={args.runs}",
        f"-max_total_time={args.seconds}",
        f"-max_len={MAX_LENGTH}",
        "-timeout=120",
        "-rss_limit_mb=4000",
        "-print_final_stats=1",
        f"-artifact_prefix={args.folder}/",
    ]
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)  # half of the time would go into looking at what stays
    atheris.Setup(
        [sys.argv[0], *options, str(corpus)], Findings(args.folder), custom_mutator=Mutator(pool)
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
