"""Counts the instructions of every step of the transport by callgrind.

    lab.sh probe instructions PROGRAM RUSTC

PROGRAM is the benchmark `instructions`: without arguments it prints the names of its cases, with one it
runs that case and prints how many calls it made. Prints one JSON object: {"rustc": RUSTC, "cases": {case:
instructions of one call}}.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path

from lab import LabError, UsageError

MEASURED = "*instructions::measured*"


def collected(text: str) -> int:
    """The instructions in a file of callgrind."""
    found: list[str] = re.findall(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
    return int(found[-1]) if found else 0


def instructions(program: str, case: str) -> int:
    """Instructions of one call."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect={MEASURED}"]
        ran = subprocess.run([*command, program, case], capture_output=True, text=True)
        if ran.returncode != 0:
            raise LabError(f"callgrind failed: {ran.stderr.strip().splitlines()[-3:]}")
        total = collected(out.read_text(encoding="utf-8"))
    if total == 0:
        raise LabError(f"callgrind has not seen the measured function of '{case}'")
    return total // int(ran.stdout)


def main(words: list[str]) -> None:
    match words:
        case [program, rustc]:
            listed = subprocess.run([program], capture_output=True, text=True, check=True)
            cases = {case: instructions(program, case) for case in listed.stdout.split()}
            print(json.dumps({"rustc": rustc, "cases": cases}, indent=2))
        case _:
            raise UsageError
