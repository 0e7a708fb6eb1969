#!/usr/bin/env python3
"""Make the pictures of README.md in tools/pictures/: what a person sees of runs of `experiment=tiny`.

    tools/pictures.py
    tools/pictures.py --keep runs/pictures      # keep the runs, and use them again

report.png is the top of `report.html`, by Chromium (left as it is where there is none); the others are terminals of 80
columns, as SVG. Seven runs of 20 seconds each: one of two iterations, and two systems with three seeds to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import interpreter

interpreter.require("rich", "PIL")

from PIL import Image
from rich.console import Console
from rich.text import Text

PICTURES = interpreter.HOME / "tools" / "pictures"
WIDTH, LINES = 80, 24
# rich's own frame names fonts on a server, which a page without a network waits for.
FRAME = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px "DejaVu Sans Mono", Menlo, Consolas, monospace }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder of the runs (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = (arguments.keep or Path(folder)).resolve()
        (root / "runs").mkdir(parents=True, exist_ok=True)
        make(root)
    return 0


def make(root: Path) -> None:
    """Make the runs below a folder, and the pictures of what the verbs print there."""
    run(root, "run.name=tiny")
    for seed in range(3):
        for system in ("frontier_error", "idpo"):
            run(
                root, f"experiment=[tiny,{system}]", f"run.seed={seed}", f"run.name={system}-{seed}", "run.root=systems"
            )
    words = ["show", "runs/tiny", "--stage", "explore", "--wrong", "-n", "1"]
    first = json.loads(said(root, *words, "--jsonl").splitlines()[0])
    told = ["explain", "runs/tiny", "--iteration", str(first["iteration"]), "--question", first["question_id"]]
    draw("show", [words, told], root)
    draw("compare", [["compare", "systems", "--baseline", "idpo"]], root)
    photograph(root / "runs" / "tiny" / "report.html", PICTURES / "report.png")


def run(root: Path, *overrides: str) -> None:
    """A run of two iterations; one that is finished is not repeated."""
    said(root, "experiment=tiny", "loop.iterations=2", *overrides)


def said(root: Path, *words: str) -> str:
    """What the program prints below a folder. Raises SystemExit: it failed."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "PYTHONPATH": str(interpreter.HOME)}
    line = [sys.executable, "-m", "hpc_saidpo", *words]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def draw(name: str, commands: Sequence[Sequence[str]], root: Path) -> None:
    """Run the commands, and draw them and their output as a terminal."""
    with open(os.devnull, "w") as nothing:
        console = Console(record=True, width=WIDTH, file=nothing, highlight=False)
        for i, words in enumerate(commands):
            console.print(*[""] * min(i, 1), Text(f"$ hpc-saidpo {' '.join(words)}", "bold"), sep="\n")
            lines = said(root, *words).splitlines()
            console.print(Text("\n".join(lines[:LINES]) + "\n..." * (len(lines) > LINES)))
        picture = console.export_svg(title="", code_format=FRAME, unique_id=name)
    (PICTURES / f"{name}.svg").write_text(picture)


def photograph(page: Path, picture: Path) -> None:
    """Write a picture of the top of a page, if Chromium is here."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        print(f"{picture.name} is as before: there is no Chromium here")
        return
    line = [chromium, "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=760,1000"]
    subprocess.run([*line, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
    Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(picture, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
