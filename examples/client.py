#!/usr/bin/env python3
"""A client of the protocol in another language, written from the page `protocol` of the manual alone.

    examples/client.py HOST[:PORT] PATH OUTPUT

It downloads one object over the kernel's UDP: one stream, one connection at a time, no pending numbers, no
pacing, no address changes. It has every rule that the page calls necessary, and few of those that only make
a client faster. Python 3.10 or later, standard library only.
"""

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Span = tuple[int, int]  # a start, and an end that is not included

OPEN_BYTES, HEADER, CONTINUATION_FIELD, MAX_FLIGHT, MAX_WINDOW = 1232, 24, 109, 44, 1 << 20
OPENED, LOSS, TIMEOUT = 1, 2, 5
DECLARES, WANTS, PROBE, BEGINS = 1, 2, 8, 16
UNKNOWN = (1 << 48) - 1
SIZE = 1472  # largest datagram for an MTU of 1500, over IPv4
REFRESH = 10.0  # a continuation older than this is replaced


def issued(continuation: bytes) -> int:
    return int.from_bytes(continuation[2:8], "big")


def varint(value: int) -> bytes:
    for bits, prefix in ((6, 0), (14, 1), (30, 2), (62, 3)):
        if value < 1 << bits:
            return (prefix << bits | value).to_bytes((bits + 2) // 8, "big")
    raise ValueError(value)


def spans(items: list[Span]) -> bytes:
    return bytes([len(items)]) + b"".join(varint(a) + varint(b - a) for a, b in items)


def greatest(top: int, holds: Callable[[int], bool]) -> int:
    """The greatest t in 0 … top for which `holds`, which is true up to some t."""
    low, high = 0, top
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def root(n: int, degree: int) -> int:
    return greatest(1 << (n.bit_length() // degree + 1), lambda t: t**degree <= n)


def cubic(c: int, w_max: int, r: int, n: int) -> tuple[int, int]:
    """Window and elapsed time of the CUBIC curve; section CUBIC of the page."""
    unit, most = 2_500_000_000_000_000_000, MAX_WINDOW
    w_max = max(w_max, c)
    k = root((w_max - c) * unit, 3)
    rest = (most - w_max) * unit
    full = k + root(rest, 3) + (root(rest, 3) ** 3 < rest)
    q = min(max(w_max, 10 * c // 7), most)
    a = -(-17 * (q * q - c * c) // 18)
    e = a - (-(most * most - q * q) // 2)
    m = min(n, e)
    line = min(root((17 * c * c + 18 * min(m, a) + 34 * max(0, m - a)) * 2**32 // 17, 2), most << 16)
    reno = ((min(line, q << 16) - (c << 16)) * r * 17 // 9 + max(0, line - (q << 16)) * r) >> 16
    reno += max(0, n - e) * r // most

    def area(t: int, packets: int) -> int:
        return (w_max * t - packets) * 4 * unit + (t - k) ** 4 - k**4

    if area(full, n * r) > 0:
        curve = greatest(full, lambda t: area(t, n * r) <= 0)
    else:
        curve = full + max(0, n * r - -(-area(full, 0) // (4 * unit))) // most
    t = min(reno, curve)
    return min(max(c, line >> 16, most if t >= full else w_max + (t - k) ** 3 // unit), most), t


@dataclass(frozen=True)
class Epoch:
    base: int
    c: int
    slow_start: bool = True
    top: int = MAX_WINDOW  # threshold of slow start, or plateau
    r: int = 1_000_000

    def at(self, k: int) -> tuple[int, int]:
        """Window and elapsed time at the edge `k`."""
        n = k - self.base
        if not self.slow_start:
            return cubic(self.c, self.top, self.r, n)
        top = min(max(self.top, self.c), MAX_WINDOW)
        window, elapsed = (self.c + n, 0) if n < top - self.c else cubic(top, top, self.r, n - top + self.c)
        if self.base == 0:
            j = min(k, self.c)
            window = min(max(window, self.c + j * max(10, 2 * self.c) // self.c - j), MAX_WINDOW)
        return window, elapsed

    def edge(self, k: int) -> int:
        return k + self.at(k)[0]


@dataclass
class Event:
    kind: int
    p: int
    r: int
    old: Epoch
    acked: int = 0
    continuation: bytes = b""
    came: float = 0.0

    def __post_init__(self) -> None:
        w = self.old.at(self.p)[0]
        self.w, self.R, self.acked = w, self.p + w, self.p
        low = max(2, w * 14 // 20)
        plateau = w * 17 // 20 if not self.old.slow_start and (w < self.old.top or w == self.old.c) else w
        if self.kind == OPENED:
            self.next = Epoch(self.R, max(10, 2 * w), True, MAX_WINDOW, self.r)
        elif self.kind == LOSS:
            self.next = Epoch(self.R, low, False, plateau, self.r)
        else:
            self.next = Epoch(self.R, 2, True, low, self.r)

    def edge(self, k: int) -> int:
        return self.R + (k - self.p) * self.next.c // self.w


@dataclass(eq=False)
class Flight:
    first: int
    count: int
    stream: int
    yields: Epoch
    datagram: bytes
    sent: float
    wanted: list[Span] = field(default_factory=list)
    fresh: bool = True  # its round trip counts
    again: float = 0.0  # a server asked to wait until then
    upto: int = 0  # the edge that its request showed


class Client:
    def __init__(self, host: str, port: int, path: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self.connection = self.echo = self.probe = self.opening = b""
        self.runs: dict[int, tuple[int, int, int]] = {}  # by number: first and last of its run, and their x
        self.tokens: list[float] = []  # when probes and timeouts left
        self.event: Event | None = None
        self.awaited: dict[int, Flight] = {}  # by number
        self.user, self.stream, self.length = b"", 0, UNKNOWN
        self.body = bytearray()  # the stream
        self.todo: list[Span] = []  # the spans of it still to be requested
        self.smoothed, self.variation, self.least, self.backoff = 0.0, 0.0, 9e9, 0
        self.lost = self.timeouts = self.probes = 0
        self.asked_at = 0.0  # when a fresher continuation was last requested
        self.open()

    # --- Opening ---

    def open(self) -> None:
        if self.echo:
            self.socket.send(self.opening)
            return
        self.echo = os.urandom(8)
        self.stream += not self.user
        token = struct.pack("!B", len(self.held)) + self.held + self.connection if self.connection else b"\0"
        part, offset = (self.user, self.first_missing()) if self.user else (self.request, 0)
        head = b"\x10\x01" + self.echo + struct.pack("!HB", SIZE, self.stream & 255) + token
        head += offset.to_bytes(6, "big") + struct.pack("!BH", not self.user, len(part)) + part
        self.opening = head.ljust(OPEN_BYTES, b"\0")
        self.opened_at = self.heard = time.monotonic()
        self.socket.send(self.opening)

    def adopt(self, connection: bytes, count: int, size: int, continuation: bytes) -> None:
        now = time.monotonic()
        self.connection, self.size, self.echo = connection, min(size, SIZE), b""
        self.give_up()
        self.epoch, self.held, self.held_at, self.started = Epoch(0, count), continuation, now, now
        self.edge, self.highest, self.runs, self.gap_since, self.tokens = 0, count, {}, 0.0, []
        self.curve_start = issued(continuation)
        if not self.smoothed:
            self.sample(now - self.opened_at)
        flight = Flight(1, count, self.stream, self.epoch, b"", self.opened_at, fresh=False)
        self.awaited = dict.fromkeys(range(1, count + 1), flight)
        self.event = Event(OPENED, 0, self.round_trip(), self.epoch)

    # --- Receiving ---

    def receive(self, data: bytes) -> None:
        kind = data[0] & 0xE0
        if kind in (0x80, 0xA0) and len(data) >= HEADER:
            self.response(data, kind == 0xA0)
        elif data[1:9] != self.connection:
            return
        elif kind == 0xE0 and data[11:15] == self.probe:
            epoch = self.event.next if self.event else self.epoch
            self.take(epoch, data[16 : 16 + data[15]], self.edge)
        elif kind == 0x40:
            number, stream, delay = struct.unpack_from("!IBH", data, 11)
            flight = self.awaited.get(self.expand(number))
            if flight and flight.stream & 255 == stream:
                flight.again, flight.fresh = time.monotonic() + min(max(delay, 50), 10_000) / 1000, False
                self.heard, self.backoff = time.monotonic(), 0

    def response(self, data: bytes, opened: bool) -> None:
        flags, at, count, size = data[0], HEADER, 0, 0
        number, x, _, stream = struct.unpack_from("!IQHB", data, 9)
        if opened:
            echo, (size, count), at = data[at : at + 8], struct.unpack_from("!HB", data, at + 8), at + 11
            if size < 256 or (echo != self.echo and data[1:9] != self.connection):
                return
        void, at = (data[at], at + 1) if flags & 4 else (0, at)
        continuation = user = b""
        if flags & 1:
            continuation = data[at + 1 : at + 1 + data[at]]
            at += 1 + len(continuation) if opened else CONTINUATION_FIELD
        if opened and echo == self.echo and continuation:
            self.adopt(data[1:9], min(max(count, 1), 12), size, continuation)
        if data[1:9] != self.connection:
            return
        length = UNKNOWN
        if flags & 2:
            length, size = int.from_bytes(data[at : at + 6], "big"), int.from_bytes(data[at + 6 : at + 8], "big")
            user, at = data[at + 8 : at + 8 + size], at + 8 + size
        n = self.expand(number)
        if n == 0 or n + void > self.highest:
            return
        self.heard, self.backoff, self.echo = time.monotonic(), 0, b""
        if n > self.epoch.base and not any(i in self.runs for i in range(n, n + void + 1)):
            for i in range(n, n + void + 1):
                self.runs[i] = (n, n + void, x)
        flight = self.awaited.get(n)
        if not flight:
            return  # late: its bytes were requested again
        if n == flight.first and flight.fresh:
            self.sample(self.heard - flight.sent)
        if continuation:
            self.take(flight.yields, continuation, flight.upto)
        if flags & 16:
            sys.exit("the object has changed")
        if flight.stream & 255 == stream and flight.stream == self.stream:
            if user and not self.user:
                self.begin(user, length, flight, len(data) - HEADER - 6 - (12 + len(continuation) if opened else 0))
            self.chunks(data[at:], bool(flags & 8), flight)
        for i in range(n, n + void + 1):
            self.awaited.pop(i, None)
        if flight not in self.awaited.values():
            self.want(flight.wanted)

    def begin(self, user: bytes, length: int, flight: Flight, room: int) -> None:
        if length == UNKNOWN:
            sys.exit("a stream of unknown length")
        self.user, self.length, self.body = user, length, bytearray(length)
        flight.wanted = [(0, min(length, flight.count * room))]
        self.todo = without([(0, length)], flight.wanted[0])

    def chunks(self, body: bytes, several: bool, flight: Flight) -> None:
        while len(body) >= 6 + 2 * several and self.user:
            start = int.from_bytes(body[:6], "big")
            size = int.from_bytes(body[6:8], "big") if several else len(body) - 6
            chunk, body = body[6 + 2 * several :][:size], body[6 + 2 * several + size :]
            if not chunk or start + len(chunk) > self.length:
                return
            self.body[start : start + len(chunk)] = chunk
            flight.wanted = without(flight.wanted, (start, start + len(chunk)))
            if not flight.datagram:  # the answer to an OPEN, whose bytes were not known before
                self.todo = without(self.todo, (start, start + len(chunk)))

    def take(self, epoch: Epoch, continuation: bytes, upto: int) -> None:
        """A continuation of `epoch` came: of the event's next epoch the first counts, of the present one the last."""
        now = time.monotonic()
        if self.event and epoch == self.event.next and not self.event.continuation:
            self.event.continuation, self.event.came = continuation, now
        elif epoch == self.epoch and not self.event:
            self.held, self.held_at = continuation, now
            self.curve_start = max(self.curve_start, issued(continuation) - epoch.at(upto)[1] // 1000)
        self.switch()

    def credit(self) -> int:
        """The time on the curve that the continuation held pays for, in microseconds."""
        paid = issued(self.held) - self.curve_start
        return max(0, 1_000_000 + self.epoch.r + (paid * 17000 // 16 if paid >= 0 else paid * 1000))

    def switch(self) -> None:
        event = self.event
        if event and event.continuation and (event.kind == TIMEOUT or event.acked == event.R):
            elapsed, start = self.epoch.at(event.p)[1], issued(event.continuation)
            paid = (start - self.curve_start) * 1000
            debt = elapsed - paid * 17 // 16 if paid >= 0 else elapsed - paid
            self.curve_start = start + max(0, -(-debt // 1000))
            self.epoch, self.held, self.held_at = event.next, event.continuation, event.came
            self.started, self.edge, self.event, self.gap_since = event.came, event.R, None, 0.0
            self.runs = {n: run for n, run in self.runs.items() if n > event.R}

    # --- Sending ---

    def fill(self) -> None:
        now = time.monotonic()
        for flight in set(self.awaited.values()):
            if 0 < flight.again <= now:
                flight.again, self.heard = 0.0, now
                self.socket.send(flight.datagram)
        if self.user and not self.todo and len(self.runs) > 2:
            self.lose(sorted(self.runs)[-3] - 1)  # the last bytes: three later numbers have come
        while self.connection and (self.todo or not self.user) and self.acknowledge(now):
            pass
        event = self.event
        if event and event.kind != TIMEOUT and event.acked == event.R and not event.continuation:
            found = self.evidence(event.R)
            if found and not self.awaited and self.token(now, 2):
                self.probe, self.probes = os.urandom(4), self.probes + 1
                self.emit(event.R, event.R, *found, [], PROBE)

    def acknowledge(self, now: float) -> bool:
        """Sends one request if one may be sent; returns whether it did."""
        event = self.event
        if (event and event.kind == TIMEOUT) or (not self.user and self.beginning()):
            return False
        graph = event or self.epoch
        after = event.acked if event else self.edge
        last = after
        if event:  # a number of the zone passes once a later one has come
            last = max((n for n in self.runs if n <= event.R), default=after)
        else:
            while last + 1 in self.runs:
                last = self.runs[last + 1][1]
            if last == after:
                return self.declare_loss(now)
        if last <= after:
            return False
        window = event.next.c if event else self.epoch.at(after)[0]
        most = max(2, min(window // 8, MAX_FLIGHT, self.packets_wanted()))
        upto = after + max(
            1, greatest(min(last - after, most), lambda d: graph.edge(after + d) - graph.edge(after) <= most)
        )
        first, count = graph.edge(after) + 1, graph.edge(upto) - graph.edge(after)
        if self.epoch.at(min(upto, event.p) if event else upto)[1] > self.credit():
            if not self.awaited and not event and self.token(now, 2):
                self.probe, self.probes = os.urandom(4), self.probes + 1
                self.emit(self.edge, self.edge, self.edge, [], [], PROBE)
            return False
        found = self.evidence(upto, last)
        if not found or (count == 0 and not (event and upto == event.R)):
            return False
        if event:
            event.acked = upto
        else:
            self.edge = upto
        if count:
            self.ask(after, upto, first, count, *found)
        if event:
            self.lose(upto)
        self.switch()
        return True

    def declare_loss(self, now: float) -> bool:
        later = [n for n in self.runs if n > self.edge]
        self.gap_since = (self.gap_since or now) if later else 0.0
        if not later or (len(later) < 3 and now < self.gap_since + self.smoothed / 4 + 0.005):
            return False
        self.lost, self.gap_since = self.lost + 1, 0.0
        self.event = Event(LOSS, self.edge, self.round_trip(), self.epoch)
        self.lose(min(later) - 1)
        return True

    def lose(self, upto: int) -> None:
        """Numbers up to `upto` that have not come are lost: the bytes of whole flights are wanted again."""
        lost = {self.awaited.pop(n) for n in sorted(self.awaited) if n <= upto}
        for flight in lost - set(self.awaited.values()):
            self.want(flight.wanted)

    def evidence(self, upto: int, last: int = 0) -> tuple[int, list[Span]] | None:
        """Where the proof of a request up to `upto` ends, and its holes; `None` if too little can be proven."""
        event, end = self.event, upto
        while True:
            end = self.runs[end][1] if end in self.runs else end
            holes, n = [], self.epoch.base + 1
            while n <= end:
                if n in self.runs:
                    n = self.runs[n][1] + 1
                    continue
                start = n
                while n <= end and n not in self.runs:
                    n += 1
                holes.append((start, n))
            while len(holes) > 56:  # received numbers between two holes are given away
                i = min(range(len(holes) - 1), key=lambda i: holes[i + 1][0] - holes[i][1])
                holes[i : i + 2] = [(holes[i][0], holes[i + 1][1])]
            missing = sum(b - a for a, b in holes)
            if not event or event.kind != LOSS or 4 * missing <= 3 * (end - event.p):
                return end, holes
            end = min((n for n in self.runs if end < n <= last), default=0)
            if not end:
                return None

    def proof(self, end: int, holes: list[Span]) -> int:
        value, n = 0, self.epoch.base + 1
        skip = dict(holes)
        while n <= end:
            if n in skip:
                n = skip[n]
            else:
                value, n = value ^ self.runs[n][2], self.runs[n][1] + 1
        return value

    def ask(self, after: int, upto: int, first: int, count: int, reach: int, holes: list[Span]) -> None:
        event, now = self.event, time.monotonic()
        left = self.credit() - self.epoch.at(self.edge)[1]
        low = left < (1_000_000 + self.epoch.r) * 3 // 4 and now > self.asked_at + self.smoothed
        refresh = (now - self.held_at > REFRESH or low) and not event
        self.asked_at = now if refresh else self.asked_at
        flags = WANTS if refresh or (event and not event.continuation) else 0
        if self.user:
            wanted = self.wanted_bytes(count * (self.size - HEADER - 6 - 2) - (CONTINUATION_FIELD if flags else 0))
        else:
            flags, wanted, self.stream = flags | BEGINS, [], self.stream + 1
        datagram = self.emit(after, upto, reach, holes, wanted or [(0, UNKNOWN)], flags)
        yields = event.next if event else self.epoch
        flight = Flight(first, count, self.stream, yields, datagram, now, wanted, upto=upto)
        for n in range(first, first + count):
            self.awaited[n] = flight
        self.highest = max(self.highest, first + count - 1)

    def emit(self, after: int, upto: int, reach: int, holes: list[Span], ranges: list[Span], flags: int) -> bytes:
        event, end = self.event, reach
        if event:
            end = event.p if event.kind == TIMEOUT else min(reach, event.R)
        if flags & PROBE or (event and event.kind == TIMEOUT):
            self.tokens.append(time.monotonic())
        head = struct.pack(
            "!BB8sHB", 0x20, flags | (DECLARES if event else 0), self.connection, self.size, self.stream & 255
        )
        head += bytes([len(self.held)]) + self.held + varint(after) + varint(upto - after)
        head += varint(max(reach, upto) - upto) + struct.pack("!Q", self.proof(end, holes)) + spans(holes)
        if event:
            head += bytes([event.kind]) + varint(event.p) + varint(event.r)
        if flags & PROBE:
            head, ranges, part = head + self.probe, [], b""
        else:
            part = self.request if flags & BEGINS else self.user
        datagram = head + spans(ranges) + struct.pack("!H", len(part)) + part
        self.socket.send(datagram)
        return datagram

    # --- Time ---

    def timeout_at(self) -> float:
        flights = set(self.awaited.values())
        if flights and all(flight.again for flight in flights):
            return 9e9  # silence means nothing now
        timeout = max(0.2, self.smoothed + max(4 * self.variation, 0.001)) if self.smoothed else 1.0
        return self.heard + max(timeout, min(timeout * (1 << min(self.backoff, 10)), 3.0))

    def wakes_at(self) -> float:
        waits = [flight.again for flight in self.awaited.values() if flight.again]
        gap = self.gap_since + self.smoothed / 4 + 0.006 if self.connection and self.gap_since else 9e9
        return min([self.timeout_at(), gap, *waits])

    def time_out(self) -> None:
        """Nothing came: all that is in flight is given up."""
        now = time.monotonic()
        self.heard, self.backoff, self.timeouts = now, self.backoff + 1, self.timeouts + 1
        if not self.connection:
            self.open()
            return
        if now >= self.started + 0.2 and self.token(now, 3):
            self.give_up()
            event = self.event
            if not (event and event.kind == TIMEOUT):
                p = event.acked if event else self.edge
                p = self.runs[p][1] if p in self.runs else p
                self.event = event = Event(TIMEOUT, p, self.round_trip(), self.epoch)
            found = self.evidence(event.p)
            if found:
                self.ask(event.p, event.R, event.R + 1, event.next.c, event.R, found[1])
        if self.backoff > 3:
            self.open()  # beside the timeout: whichever is answered first goes on

    def token(self, now: float, most: int) -> bool:
        """Whether a probe or timeout may leave: one each 100 ms, and one less than a server allows at once."""
        full = 0.0
        for taken in self.tokens[-8:]:
            full = max(full, taken) + 0.1
        return max(full, now) + 0.1 - now <= 0.1 * most + 1e-9

    def sample(self, rtt: float) -> None:
        if not self.smoothed:
            self.smoothed, self.variation = rtt, rtt / 2
        self.variation += (abs(self.smoothed - rtt) - self.variation) / 4
        self.smoothed += (rtt - self.smoothed) / 8
        self.least = min(self.least, rtt)

    def round_trip(self) -> int:
        """The round trip that an event declares, in microseconds."""
        return min(max(int(1e6 * max(self.smoothed * 0.85, self.least)), 1), 1_000_000)

    # --- Bytes and numbers ---

    def expand(self, low: int) -> int:
        highest = self.highest
        return min(
            (highest & ~0xFFFFFFFF | low) + (i << 32)
            for i in (-1, 0, 1)
            if abs((highest & ~0xFFFFFFFF | low) + (i << 32) - highest) <= 1 << 31
        )

    def beginning(self) -> bool:
        return any(flight.stream == self.stream for flight in self.awaited.values())

    def first_missing(self) -> int:
        return min((a for a, _ in self.todo), default=self.length)

    def packets_wanted(self) -> int:
        room = self.size - HEADER - 6
        return 16 if not self.user else -(-sum(b - a for a, b in self.todo) // room)

    def wanted_bytes(self, most: int) -> list[Span]:
        taken: list[Span] = []
        while self.todo and most > 0 and len(taken) < 32:
            start, end = self.todo.pop(0)
            cut = min(end, start + most)
            taken.append((start, cut))
            most -= cut - start + 8
            if cut < end:
                self.todo.insert(0, (cut, end))
        return taken

    def want(self, items: list[Span]) -> None:
        merged: list[Span] = []
        for start, end in sorted(self.todo + items):
            if merged and merged[-1][1] >= start:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            elif start < end:
                merged.append((start, end))
        self.todo = merged

    def give_up(self) -> None:
        self.lose(max(self.awaited, default=0))

    def run(self) -> bytes:
        while not (self.user and not self.todo and not any(f.wanted for f in self.awaited.values())):
            wait = max(0.0, self.wakes_at() - time.monotonic())
            if select.select([self.socket], [], [], wait)[0]:
                self.receive_all()
            if time.monotonic() >= self.timeout_at():
                self.time_out()
            self.fill()
        return bytes(self.body)

    def receive_all(self) -> None:
        while True:
            try:
                self.receive(self.socket.recv(65_535, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return
            except (IndexError, struct.error, ConnectionRefusedError):
                pass  # cut short, or no server at the moment


def without(items: list[Span], gone: tuple[int, int]) -> list[Span]:
    parts = [[(a, min(b, gone[0])), (max(a, gone[1]), b)] for a, b in items]
    return [(a, b) for pair in parts for a, b in pair if a < b]


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    host, _, port = sys.argv[1].partition(":")
    client = Client(host, int(port or 7600), sys.argv[2])
    stream = client.run()
    head, _, body = stream.partition(b"\r\n\r\n")
    with open(sys.argv[3], "wb") as output:
        output.write(body)
    status = head.split(b"\r\n")[0].decode()
    print(
        f"{status}: {len(body)} bytes, {client.lost} losses, {client.timeouts} timeouts, {client.probes} probes",
        file=sys.stderr,
    )
    sys.exit(status.split(" ")[1] != "200")


if __name__ == "__main__":
    main()
