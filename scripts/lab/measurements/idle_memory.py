"""Memory of a server with idle connections: the kinds `idle-ours` and `idle-kernel` of several scripts.

    lab.sh record EXPERIMENT idle-ours SCRATCH RESULTS run=UNIX connections=N before=KIB after=KIB ...
    lab.sh record EXPERIMENT idle-kernel SCRATCH RESULTS run=UNIX contender=NAME connections=N ...

Memory is resident memory of the server's processes before the connections and with them; `idle-ours`
also takes it after one in a hundred has gone on (resumed) and at the end (last), and reads the figures of
the load generator from connections.json and hostile.json. `idle-kernel` takes `sockets`, the KiB of the
kernel's objects for the connections of both ends.
"""

from collections.abc import Mapping

from lab.measurements import Session
from lab.records import Record


def ours(session: Session) -> list[Record]:
    count = session.count("connections")
    figures = {
        "server_before": (session.number("before"), "KiB"),
        "server": (session.number("after"), "KiB"),
        "server_resumed": (session.number("resumed"), "KiB"),
        "server_last": (session.number("last"), "KiB"),
        "kernel": (0.0, "KiB"),
    }
    details = {"load": session.json("connections.json"), "hostile": session.json("hostile.json")}
    return [recorded(session, "headwater", count, figures, details)]


def kernel(session: Session) -> list[Record]:
    count, sockets = session.count("connections"), session.number("sockets")
    figures = {
        "server_before": (session.number("before"), "KiB"),
        "server": (session.number("after"), "KiB"),
        # One end's: the machine holds both.
        "kernel": (max(sockets / 2, 0), "KiB"),
    }
    return [recorded(session, session.word("contender"), count, figures, {})]


def recorded(
    session: Session,
    contender: str,
    count: int,
    figures: Mapping[str, tuple[float | None, str]],
    details: Mapping[str, object],
) -> Record:
    sums = figures["server"][0], figures["kernel"][0]
    print(f"memory, {count} connections, {contender}: {sum(value or 0 for value in sums):.0f} KiB")
    parameters = {"connections": count}
    return session.record(f"memory {count}", contender, figures, parameters=parameters, details=details)


KINDS = {"idle-ours": ours, "idle-kernel": kernel}
