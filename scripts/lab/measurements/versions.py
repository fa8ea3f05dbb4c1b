"""The programs and the machine that are measured.

    lab.sh record versions HEADWATER RMEM SERVER

Prints one JSON object. RMEM is the kernel's `tcp_rmem` at the clients; SERVER has two lines, the
`tcp_wmem` and the `tcp_congestion_control` of the servers.
"""

import json
import os
import platform
import subprocess
from pathlib import Path

from lab import UsageError
from lab.settings import ROOT


def first_line(*command: str) -> str:
    """The first line that a program prints; nothing if it isn't there or fails."""
    try:
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    except OSError:
        return ""
    return ran.stdout.split("\n", 1)[0] if ran.returncode == 0 else ""


def main(words: list[str]) -> None:
    match words:
        case [headwater, rmem, server]:
            wmem, control = server.splitlines()
            found = {
                "kernel": platform.release(),
                "cores": str(os.cpu_count()),
                "headwater": first_line(str(Path(headwater).absolute()), "--version"),
                "revision": first_line("git", "describe", "--always", "--dirty"),
                "curl": first_line("curl", "--version"),
                "nginx": first_line("nginx", "-v"),
                "rmem": rmem,
                "wmem": wmem,
                "congestion_control": control,
            }
            print(json.dumps(found))
        case _:
            raise UsageError
