"""Reports what `bench.sh` has measured.

    lab.sh report bench DIR

Reads DIR/results.jsonl and prints one table of the newest run: medians and ranges of rounds, and how many
times the first contender of the case. Open connections are drawn in DIR/connections.svg: the memory that
each server has taken since it had the fewest.
"""

from collections.abc import Sequence
from pathlib import Path

from lab.drawing.axes import Logarithmic, covering, thousands
from lab.drawing.charts import LineChart, Ranged, Series
from lab.drawing.palette import standalone
from lab.figures import Spread, number
from lab.records import Record, by, known_spread, last_run, read, spread
from lab.reports import of_folder
from lab.tables import aligned

HEADS = ["case", "layout", "peer", "figure", "median [range]", "of the first", "p50 us", "p99 us", "server CPU us"]
# The figures of a record that have a line of their own: name, title, whether ratios are shown.
LINES = (("rate", "requests/s", True), ("goodput", "Mbit/s", True), ("busy", "busy of {cores}", False))


def ratios(records: Sequence[Record], first: Sequence[Record], figure: str) -> Spread:
    pairs = zip(known_spread(records, figure).rounds, known_spread(first, figure).rounds)
    return Spread(tuple(value / max(other, 1e-9) for value, other in pairs))


def median_of(records: Sequence[Record], figure: str) -> str:
    held = spread(records, figure)
    return number(held.median) if held else "-"


def lines(records: Sequence[Record], first: Sequence[Record]) -> list[list[str]]:
    """The lines of one contender in one case."""
    one = records[0]
    start = [one.case, one.layout, one.contender]
    out = []
    for figure, title, compared in LINES:
        held = spread(records, figure)
        if held is None:
            continue
        text = title.format(cores=one.parameters.get("cores"))
        ratio = str(ratios(records, first, figure)) if compared and "connections" not in one.parameters else "-"
        times = [median_of(records, name) for name in ("p50", "p99", "server_cpu")]
        out.append([*start, text, str(held), ratio, *times])
    if "busy" in one.figures:
        rounds = (r.known("goodput") * r.parameters["cores"] / max(r.known("busy"), 1e-9) for r in records)
        out.append([*start, "all busy: Mbit/s", str(Spread(tuple(rounds))), "-", "-", "-", "-"])
    return out


def table(records: Sequence[Record]) -> str:
    rows = [HEADS]
    for group in by(records, lambda record: (record.case, record.layout)).values():
        contenders = by(group, lambda record: record.contender)
        first = next(iter(contenders.values()))
        for held in contenders.values():
            rows += lines(held, first)
    return aligned(rows)


def connection_steps(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.case.startswith("connections")]


def idle_memory(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.case.startswith("memory ")]


def memory_lines(records: Sequence[Record]) -> list[str]:
    """What open connections cost, in words."""
    out = []
    for group in by(connection_steps(records), lambda record: (record.case, record.layout)).values():
        if len(group) < 2:
            continue
        few, many = group[0], group[-1]
        counts = [record.parameters["connections"] for record in (few, many)]
        each = (many.known("generator") - few.known("generator")) * 1024 / max(counts[1] - counts[0], 1)
        grown = many.known("server") - few.known("server")
        out.append(
            f"memory from {thousands(counts[0])} to {thousands(counts[1])} connections: "
            f"server {grown:.0f} KiB more, this generator {each:.0f} bytes each"
        )
    for one in idle_memory(records):
        grown = one.known("server") - one.known("server_before")
        count = thousands(one.parameters["connections"])
        kernel = f"the kernel {one.known('kernel'):.0f} KiB at each end"
        out.append(f"nginx with {count} idle connections: {grown:.0f} KiB more, {kernel}")
    return out


def points(pairs: Sequence[tuple[int, float]]) -> list[Ranged]:
    """MiB above the first, by number of connections; the last of equal numbers counts."""
    ordered = sorted(dict(pairs).items())
    mib = [max(kib - ordered[0][1], 0) / 1024 for _, kib in ordered]
    return [Ranged(count, value, value, value) for (count, _), value in zip(ordered, mib)]


def picture(records: Sequence[Record]) -> str | None:
    """Memory over open connections, if any were measured."""
    ours = [
        (record.parameters["connections"] + record.parameters["kept"], record.known("server"))
        for record in connection_steps(records)
    ]
    if not ours:
        return None
    series = [Series("headwater", "headwater", points(sorted(ours)))]
    kernel = [
        (
            record.parameters["connections"],
            record.known("server") - record.known("server_before") + record.known("kernel"),
        )
        for record in idle_memory(records)
    ]
    if kernel:
        series.append(Series("nginx, kernel TCP", "cubic", points([(1, 0), *kernel])))
    counts = [point.x for one in series for point in one.points]
    return LineChart(
        "Memory of a server with open connections",
        "Server processes, and for nginx the kernel's objects for the connections of one end",
        Logarithmic(
            min(counts),
            max(counts),
            sorted({10.0**power for power in range(7) if min(counts) <= 10**power <= max(counts)}),
        ),
        covering([value for one in series for value in one.values], 5),
        "open connections",
        "MiB more than with the fewest",
        series,
    ).draw()


def report(folder: Path) -> None:
    records = last_run(read(folder / "results.jsonl"))
    print(table([record for record in records if not record.case.startswith("memory ")]))
    for line in memory_lines(records):
        print(line)
    if drawn := picture(records):
        (folder / "connections.svg").write_text(standalone(drawn), encoding="utf-8")
    versions = records[-1].versions
    print(
        f"kernel {versions['kernel']}, {versions['cores']} processors, kernel TCP under nginx: "
        f"{versions['congestion_control']}; {folder}/results.jsonl"
    )


main = of_folder(report)
