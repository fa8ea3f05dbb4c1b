"""Records of `goodput.sh`: one download of a contender.

    lab.sh record goodput get SCRATCH RESULTS run=UNIX contender=NAME round=N
    lab.sh record goodput curl SCRATCH RESULTS run=UNIX contender=NAME round=N
    lab.sh record goodput iperf3 SCRATCH RESULTS run=UNIX contender=NAME round=N

read stats (of `headwater get`), curl ("bytes seconds") and iperf3 (its JSON). Rounds below 1 are
warm-up: they leave no record.
"""

from lab.figures import number
from lab.measurements import Session, make, mbits
from lab.records import Record


def recorded(session: Session, value: float) -> list[Record]:
    contender, round = session.word("contender"), session.count("round")
    print(f"round {round}, {contender}: {number(value)} Mbit/s")
    parameters = {"object_mib": session.count("object_mib"), "mtu": 1500}
    figures = {"goodput": (value, "Mbit/s")}
    return [session.record("goodput", contender, figures, parameters=parameters)] if round > 0 else []


def get(session: Session) -> list[Record]:
    stats = session.json("stats")
    return recorded(session, mbits(stats["bytes"], stats["seconds"]))


def curl(session: Session) -> list[Record]:
    size, seconds = session.text("curl").split()
    return recorded(session, mbits(int(size), float(seconds)))


def iperf3(session: Session) -> list[Record]:
    return recorded(session, session.json("iperf3")["end"]["sum_received"]["bits_per_second"] / 1e6)


def main(words: list[str]) -> None:
    make("goodput", {"get": get, "curl": curl, "iperf3": iperf3}, words)
