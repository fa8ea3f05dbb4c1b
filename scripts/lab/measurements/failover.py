"""The figures of one download whose server was killed and started again.

    lab.sh record failover SAMPLES NAME start=S killed=S back=S end=S status=N identical=0|1

SAMPLES are the lines of the probe `interface` at the router's link to the client or the client's own;
times are Unix seconds. Prints one JSON object: a contender as `lab.sh report failover` draws it, with
`longest_stall_ms`, the longest time without progress, and `exit_status`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from lab import UsageError

# Less than this many bytes are no progress: acknowledgements, neighbour discovery.
PROGRESS_BYTES = 20_000

Row = tuple[float, int]


def longest_stall_ms(rows: Sequence[Row], start: float, end: float) -> int:
    """The longest time between two samples that each show progress."""
    stall, last = 0.0, None
    for at, received in rows:
        if not start <= at <= end:
            continue
        if last is None or received - last[1] > PROGRESS_BYTES:
            stall = max(stall, at - last[0]) if last else stall
            last = (at, received)
    return int(stall * 1000)


def contender(
    name: str, rows: Sequence[Row], times: dict[str, float], status: int, identical: bool
) -> dict[str, object]:
    start = times["start"]
    zero = [row for row in rows if row[0] <= start][-1]
    stall = longest_stall_ms(rows, start, times["end"])
    completed = status == 0 and identical
    outcome = f"complete and identical, stalled {stall} ms" if completed else f"broken, exit status {status}"
    return {
        "name": name,
        "outcome": outcome,
        "completed": completed,
        "exit_status": status,
        **{f"{which}_s": round(times[which] - start, 6) for which in ("killed", "back", "end")},
        "longest_stall_ms": stall,
        "samples": [(round(at - start, 4), received - zero[1]) for at, received in rows if at >= zero[0]],
    }


def main(words: list[str]) -> None:
    match words:
        case [path, name, *pairs] if all("=" in pair for pair in pairs):
            lines = (line.split() for line in Path(path).read_text(encoding="utf-8").splitlines())
            rows = [(float(at), int(received)) for at, received, _ in lines]
            held = dict(pair.split("=", 1) for pair in pairs)
            status, identical = int(held.pop("status")), held.pop("identical") == "1"
            times = {key: float(value) for key, value in held.items()}
            print(json.dumps(contender(name, rows, times, status, identical)))
        case _:
            raise UsageError
