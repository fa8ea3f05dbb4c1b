"""Records of `tcp-scale.sh`: the cost of a packet of plain TCP to the server.

    lab.sh record tcp-scale rounds SCRATCH RESULTS run=UNIX connections=N round=N

Reads rounds, the output of the probe http-rounds. Rounds below 1 are warm-up: they leave no record.
"""

from lab.figures import number
from lab.measurements import Session, make
from lab.records import Record


def rounds(session: Session) -> list[Record]:
    held, connections, round = session.json("rounds"), session.count("connections"), session.count("round")
    cost = held["server_ns"] / max(1, held["packets"])
    print(f"round {round}, {connections} connections: {number(cost)} ns a packet")
    figures: dict[str, tuple[float | None, str]] = {"packet": (cost, "ns"), "requests": (held["requests"], "count")}
    parameters = {"connections": connections}
    case = f"{connections} connections"
    made = session.record(case, "headwater", figures, parameters=parameters)
    return [made] if round > 0 else []


def main(words: list[str]) -> None:
    make("tcp-scale", {"rounds": rounds}, words)
