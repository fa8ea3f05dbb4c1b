"""Writes a small database of countries in MaxMind's format, of both families.

    lab.sh probe mmdb OUT <<<"PREFIX COUNTRY CONTINENT"

Standard input has one network a line, with the ISO code of its country and the code of its continent;
`-` leaves either out. The longest prefix counts. Source: the MaxMind DB file format, version 2.0.
"""

import ipaddress
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import UsageError

BITS, RECORD_BITS, SEPARATOR = 128, 32, 16
IPV4_BITS = 96  # IPv4 lies in ::/96
STRING, UINT16, UINT32, MAP, UINT64, LIST = 2, 5, 6, 7, 9, 11
NUMBERS = {"node_count": UINT32, "build_epoch": UINT64}  # others have 16 bits
LEAST_EXTENDED = 8  # types from here on have a byte of their own
MARKER = b"\xab\xcd\xefMaxMind.com"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Leaf:
    """Where the record of a network is in the data section."""

    offset: int


# A child is another node's number, a leaf, or nothing.
Node = list[int | Leaf | None]


def field(kind: int, size: int, payload: bytes) -> bytes:
    """A value: its type and size in a byte or two, and its content."""
    assert size < 29, "larger sizes are written otherwise"
    head = bytes([kind << 5 | size]) if kind < LEAST_EXTENDED else bytes([size, kind - 7])
    return head + payload


def encoded(value: object, key: str = "") -> bytes:
    match value:
        case dict():
            items = [encoded(name) + encoded(item, name) for name, item in value.items()]
            return field(MAP, len(items), b"".join(items))
        case list():
            return field(LIST, len(value), b"".join(map(encoded, value)))
        case str():
            return field(STRING, len(value.encode()), value.encode())
        case int():
            size = (value.bit_length() + 7) // 8
            return field(NUMBERS.get(key, UINT16), size, value.to_bytes(size, "big"))
    raise TypeError(f"no encoding of {type(value)}")


def record(country: str, continent: str) -> dict[str, object]:
    found: dict[str, object] = {}
    if country != "-":
        found["country"] = {"iso_code": country}
    if continent != "-":
        found["continent"] = {"code": continent}
    return found


def depth_of(network: Network) -> int:
    """Bits of its prefix in a tree of IPv6 addresses."""
    return network.prefixlen + (IPV4_BITS if network.version == 4 else 0)


def insert(nodes: list[Node], network: Network, leaf: Leaf) -> None:
    """Puts a leaf into the tree; leaves of shorter prefixes stay beside it."""
    length = depth_of(network)
    assert length > 0, "a prefix of no bits is no network"
    address, at = int(network.network_address), 0
    for depth in range(length - 1):
        bit = address >> BITS - 1 - depth & 1
        below = nodes[at][bit]
        if not isinstance(below, int):
            nodes.append([below, below])
            below = nodes[at][bit] = len(nodes) - 1
        at = below
    nodes[at][address >> BITS - length & 1] = leaf


def database(lines: list[tuple[Network, str, str]]) -> bytes:
    nodes: list[Node] = [[None, None]]
    data = b""
    for network, country, continent in sorted(lines, key=lambda line: depth_of(line[0])):
        insert(nodes, network, Leaf(len(data)))
        data += encoded(record(country, continent))

    def pointer(child: int | Leaf | None) -> int:
        match child:
            case None:
                return len(nodes)
            case Leaf(offset):
                return len(nodes) + SEPARATOR + offset
            case node:
                return node

    tree = b"".join(pointer(child).to_bytes(4, "big") for node in nodes for child in node)
    metadata = {
        "node_count": len(nodes),
        "record_size": RECORD_BITS,
        "ip_version": 6,
        "database_type": "Headwater-Country",
        "languages": [],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1,
        "description": {},
    }
    return tree + bytes(SEPARATOR) + data + MARKER + encoded(metadata)


def main(words: list[str]) -> None:
    match words:
        case [out]:
            lines = [line.split() for line in sys.stdin if line.strip()]
            networks = [(ipaddress.ip_network(prefix), *codes) for prefix, *codes in lines]
            parsed = [(network, country, continent) for network, country, continent in networks]
            Path(out).write_bytes(database(parsed))
        case _:
            raise UsageError
