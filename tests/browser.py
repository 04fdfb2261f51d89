"""A page of ours becomes what headless Chromium makes of it: its DOM, its complaints, and where things stand at any width."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
    "--enable-logging=stderr", "--virtual-time-budget=2000",
)  # fmt: skip
DARK = "--blink-settings=preferredColorScheme=0"

MEASURE = """
<script>
onload = () => {
  const inside = document.querySelector('iframe').contentDocument, root = inside.documentElement;
  const box = (node) => node.getBoundingClientRect();
  const cross = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const covered = [], cut = [];
  for (const svg of inside.querySelectorAll('svg')) {
    const texts = [...svg.querySelectorAll('text')].filter((text) => text.textContent);
    texts.forEach((one, n) => {
      for (const other of texts.slice(n + 1))
        if (cross(box(one), box(other))) covered.push(one.textContent + ' | ' + other.textContent);
      const frame = box(one.parentNode.querySelector('rect') || svg);
      if (box(one).left < frame.left - 1 || box(one).right > frame.right + 1) cut.push(one.textContent);
    });
  }
  for (const node of inside.querySelectorAll('td, p, span'))
    if (node.offsetParent && !node.closest('svg') && box(node).right > root.clientWidth + 1) cut.push(node.textContent);
  document.querySelector('pre').textContent = JSON.stringify({
    width: root.scrollWidth, covered, cut, paper: getComputedStyle(inside.body).backgroundColor,
  });
};
</script>
"""


ASK = """
<script>
onload = () => {
  const inside = document.querySelector('iframe').contentDocument;
  document.querySelector('pre').textContent = JSON.stringify((%s)(inside));
};
</script>
"""


@dataclass(frozen=True)
class Seen:
    """``covered`` are texts of pictures that stand on each other, ``cut`` texts beyond their box, cell or the page;
    ``width`` is what the page takes, ``paper`` its background."""

    width: int
    covered: list[str]
    cut: list[str]
    paper: str


def dom(page: Path, *options: str) -> str:
    """The page as the browser reads it; no complaint may stand in its console. Fails where there is no browser: a page that
    nobody looked at is not tested."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("no Chromium on this machine; `make browser` or `apt-get install chromium`")
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [found, *OPTIONS, *options, profile, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def seen(html: str, folder: Path, width: int, *, dark: bool = False) -> Seen:
    """The page in a frame of so many pixels, since a browser's window is never narrower than 500."""
    return Seen(**_framed(html, folder, width, MEASURE, *([DARK] if dark else [])))


def asked(html: str, folder: Path, function: str, width: int = 390) -> Any:
    """What a JavaScript function of the page's document returns, once the page is there: it may click."""
    return _framed(html, folder, width, ASK % function)


def processor_seconds(page: Path) -> float:
    """What the browser's processes take to start, open the page and end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    dom(page)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _framed(html: str, folder: Path, width: int, script: str, *options: str) -> Any:
    frame = (
        f'<iframe srcdoc="{escape(html)}" style="border:0;width:{width}px;height:900px"></iframe>'
    )
    path = folder / "frame.html"
    path.write_text(f'<!doctype html><meta charset="utf-8">{frame}<pre></pre>{script}')
    found = dom(path, "--window-size=1600,1000", *options)
    return json.loads(unescape(re.findall(r"<pre>(.*?)</pre>", found, re.DOTALL)[-1]))
