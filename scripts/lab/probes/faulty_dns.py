"""A DNS server that misbehaves: the first label of a name says how. Answers over UDP and TCP.

    lab.sh probe faulty-dns ADDRESS NAME=ADDRESSES...

ADDRESSES, joined by commas, are the ones of the names that begin with NAME; `*` is any other. Of the first
label, up to a hyphen, these have faults, and others answer at once:

    slow6-MS      answers about IPv6 after MS milliseconds
    servfail6     fails about IPv6; servfail about both
    refused       refuses; nxdomain has no such name; nodata has no records
    silent        never answers
    truncated     sets the bit of truncation over UDP; many, too: it has 200 addresses
    wrongid       has another identifier; spelling changes the case of the question over UDP
    loop          is an alias of itself, by way of another name
    lying         adds addresses of bank.test in each section; flood sends forged answers before its own

Prints "ready", then a line of JSON for each query: name, type, id, port, and whether it came over TCP.
"""

import asyncio
import ipaddress
import json
import random
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from lab import UsageError

A, CNAME, SOA, AAAA = 1, 5, 6, 28
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5
RESPONSE, TRUNCATED, RECURSION = 0x8000, 0x0200, 0x0180
TTL_S, DNS_PORT, LIE = 60, 53, "10.77.9.66"
FORGED = 50


@dataclass(frozen=True)
class Query:
    ident: int
    name: str
    kind: int
    question: bytes
    over_tcp: bool

    @classmethod
    def parse(cls, message: bytes, over_tcp: bool) -> "Query":
        labels, place = [], 12
        while length := message[place]:
            labels.append(message[place + 1 : place + 1 + length].decode("ascii"))
            place += 1 + length
        (kind,) = struct.unpack_from("!H", message, place + 1)
        (ident,) = struct.unpack_from("!H", message)
        return cls(ident, ".".join(labels), kind, message[12 : place + 5], over_tcp)

    def label(self) -> tuple[str, str]:
        """The fault, and its argument."""
        fault, _, argument = self.name.lower().split(".")[0].partition("-")
        return fault, argument


def wire_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"


def record(name: str, kind: int, data: bytes) -> bytes:
    return wire_name(name) + struct.pack("!HHIH", kind, 1, TTL_S, len(data)) + data


def address_record(name: str, address: str) -> bytes:
    packed = ipaddress.ip_address(address).packed
    return record(name, A if len(packed) == 4 else AAAA, packed)


def response(
    query: Query,
    answers: list[bytes],
    *,
    code: int = 0,
    flags: int = 0,
    authority: tuple[bytes, ...] = (),
    additional: tuple[bytes, ...] = (),
    ident: int | None = None,
) -> bytes:
    head = struct.pack(
        "!6H",
        query.ident if ident is None else ident,
        RESPONSE | RECURSION | flags | code,
        1,
        len(answers),
        len(authority),
        len(additional),
    )
    return head + query.question + b"".join([*answers, *authority, *additional])


def soa() -> bytes:
    return record("test", SOA, wire_name("ns.test") + wire_name("root.test") + struct.pack("!5I", 1, 1, 1, 1, TTL_S))


def swapped(query: Query) -> Query:
    """The query with the case of its name changed."""
    return Query(query.ident, query.name, query.kind, query.question[:-4].swapcase() + query.question[-4:], False)


class Server:
    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = names

    def records(self, query: Query) -> list[bytes]:
        fault, _ = query.label()
        addresses = self.names.get(fault, self.names.get("*", []))
        if fault == "many":
            addresses = [f"10.77.9.{n}" for n in range(1, 200 - len(addresses))] + addresses
        of_kind = [one for one in addresses if (":" in one) == (query.kind == AAAA)]
        return [address_record(query.name, one) for one in of_kind]

    def usual(self, query: Query) -> bytes:
        answers = self.records(query) if query.kind in (A, AAAA) else []
        return response(query, answers, authority=() if answers else (soa(),))

    def replies(self, query: Query) -> list[tuple[float, bytes]]:
        """Datagrams or messages, each after a time in seconds."""
        fault, argument = query.label()
        usual = self.usual(query)
        match fault:
            case "slow6":
                return [(int(argument) / 1000 if query.kind == AAAA else 0, usual)]
            case "servfail6" if query.kind == AAAA:
                usual = response(query, [], code=SERVFAIL)
            case "servfail":
                usual = response(query, [], code=SERVFAIL)
            case "refused":
                usual = response(query, [], code=REFUSED)
            case "nxdomain":
                usual = response(query, [], code=NXDOMAIN, authority=(soa(),))
            case "nodata":
                usual = response(query, [], authority=(soa(),))
            case "silent":
                return []
            case "truncated" | "many" if not query.over_tcp:
                usual = response(query, [], flags=TRUNCATED)
            case "wrongid":
                usual = response(query, self.records(query), ident=query.ident ^ 1)
            case "spelling" if not query.over_tcp:
                usual = self.usual(swapped(query))
            case "loop":
                links = ((query.name, "back.test"), ("back.test", query.name))
                usual = response(query, [record(name, CNAME, wire_name(target)) for name, target in links])
            case "lying":
                lie = address_record("bank.test", LIE)
                usual = response(query, [lie, *self.records(query)], authority=(lie,), additional=(lie,))
            case "flood":
                lie = address_record(query.name, LIE if query.kind == A else "fd77:9::66")
                forged = [response(query, [lie], ident=random.randrange(1 << 16)) for _ in range(FORGED)]
                return [(0, one) for one in forged if one[:2] != usual[:2]] + [(0.01, usual)]
        return [(0, usual)]


def log(query: Query, port: int) -> None:
    line = {"name": query.name, "type": query.kind, "id": query.ident, "port": port, "tcp": query.over_tcp}
    print(json.dumps(line), flush=True)


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = Query.parse(data, over_tcp=False)
        log(query, addr[1])
        for after, reply in self.server.replies(query):
            asyncio.get_running_loop().call_later(after, self.send, reply, addr)

    def send(self, reply: bytes, addr: tuple[str, int]) -> None:
        if self.transport is not None:
            self.transport.sendto(reply, addr)


def streams(server: Server) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        query = Query.parse(await reader.readexactly(length), over_tcp=True)
        log(query, writer.get_extra_info("peername")[1])
        for after, reply in server.replies(query):
            await asyncio.sleep(after)
            writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()
        writer.close()

    return serve


async def run(address: str, server: Server) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Datagrams(server), local_addr=(address, DNS_PORT))
    listener = await asyncio.start_server(streams(server), address, DNS_PORT)
    print("ready", flush=True)
    await listener.serve_forever()


def main(words: list[str]) -> None:
    match words:
        case [address, *names] if names and all("=" in name for name in names):
            pairs = (name.split("=", 1) for name in names)
            asyncio.run(run(address, Server({name: addresses.split(",") for name, addresses in pairs})))
        case _:
            raise UsageError
