"""How long downloads stood still when a server was taken away.

    stalls.py SAMPLES FROM_MS STATS GONE

SAMPLES are the lines of `shares.py sample` with a counter cN for download N, STATS the beginning of the names
of their statistics (STATS1, STATS2, ...), GONE the id of the server. Prints JSON: for the downloads that had
a tenth of their packets and more of that server, and for the others, how many went on after FROM_MS, and
quantiles of the longest time without a byte that ended within WINDOW_S after FROM_MS. Others have a few
packets of that server: the answer to the packet that opens a connection may come from anywhere, and a
server that is late with its heartbeats is passed over for a moment.
"""

import glob
import json
import math
import sys

WINDOW_S = 3.0
SHARE = 0.1


def longest_gap(times, began):
    """Milliseconds of the longest time between two of the instants at which bytes had come, of those that
    end in the window."""
    gaps = [after - before for before, after in zip(times, times[1:]) if began < after <= began + WINDOW_S]
    return max(gaps) * 1000 if gaps else None


def growth(samples, name):
    """When the counter was seen to have grown."""
    pairs = zip(samples, samples[1:])
    return [after["time"] for before, after in pairs if after["bytes"][name] > before["bytes"][name]]


def quantiles(values):
    values = sorted(values)
    if not values:
        return {"count": 0}

    def at(part):
        return round(values[max(math.ceil(part * len(values)), 1) - 1])

    return {"count": len(values), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": round(values[-1])}


def main(samples, began_ms, stats, gone):
    with open(samples, encoding="utf-8") as lines:
        samples = [json.loads(line) for line in lines if line.endswith("\n")]
    groups = {"of_the_dead": [], "of_others": []}
    for name in glob.glob(glob.escape(stats) + "*"):
        with open(name, encoding="utf-8") as file:
            packets = json.load(file)["by_server"]
        gap = longest_gap(growth(samples, "c" + name[len(stats):]), int(began_ms) / 1000)
        if gap is not None:
            had = packets.get(gone, 0) > SHARE * sum(packets.values())
            groups["of_the_dead" if had else "of_others"].append(gap)
    print(json.dumps({name: quantiles(values) for name, values in groups.items()}))


main(*sys.argv[1:])
