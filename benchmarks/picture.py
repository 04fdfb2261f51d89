"""What ran last on a state folder to a picture of its report, as headless Chromium shows it.

    python benchmarks/picture.py STATE docs/pictures/report.png [--width 1280] [--height 1240] [--dark]

The picture in the README was made so, of a run of pipelines/quickstart.omr.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from omr_runtime.report.facts import gather
from omr_runtime.report.page import page
from omr_runtime.report.ran import find

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
)
DARK = "--blink-settings=preferredColorScheme=0"


def main(args: argparse.Namespace) -> int:
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        print("no Chromium on this machine; `make browser`", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        shot = _shot(browser, page(gather(find(args.state))), Path(folder), args)
        colours = Image.open(shot).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        colours.save(args.out, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size / 1000:,.0f} kB")
    return 0


def _shot(browser: str, html: str, folder: Path, args: argparse.Namespace) -> Path:
    path, shot = folder / "report.html", folder / "report.png"
    path.write_text(html)
    options = [*OPTIONS, f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars"]
    options += [DARK] if args.dark else []
    size = f"--window-size={args.width},{args.height}"
    command = [browser, *options, size, f"--screenshot={shot}", path.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return shot


if __name__ == "__main__":
    PARSER = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    PARSER.add_argument("state", type=Path)
    PARSER.add_argument("out", type=Path)
    PARSER.add_argument("--width", type=int, default=1280)
    PARSER.add_argument("--height", type=int, default=1240)
    PARSER.add_argument("--dark", action="store_true")
    sys.exit(main(PARSER.parse_args()))
