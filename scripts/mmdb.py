"""Writes a small database of countries in MaxMind's format, of both families.

    mmdb.py OUT <<<"PREFIX COUNTRY CONTINENT"

One network a line, with the ISO code of its country and the code of its continent; `-` leaves either
out. The longest prefix counts. Source: the MaxMind DB file format, version 2.0.
"""

import ipaddress
import sys

BITS, RECORD_BITS, SEPARATOR = 128, 32, 16
IPV4_BITS = 96  # IPv4 lies in ::/96
STRING, UINT16, UINT32, MAP, UINT64, LIST = 2, 5, 6, 7, 9, 11
NUMBERS = {"node_count": UINT32, "build_epoch": UINT64}  # others have 16 bits
LEAST_EXTENDED = 8  # types from here on stand in a byte of their own
MARKER = b"\xab\xcd\xefMaxMind.com"


def field(kind, size, payload):
    """A value: its type and size in a byte or two, and what follows them."""
    assert size < 29, "larger sizes are written otherwise"
    head = bytes([kind << 5 | size]) if kind < LEAST_EXTENDED else bytes([size, kind - 7])
    return head + payload


def encoded(value, key=None):
    if isinstance(value, dict):
        items = [encoded(name) + encoded(item, name) for name, item in value.items()]
        return field(MAP, len(items), b"".join(items))
    if isinstance(value, list):
        return field(LIST, len(value), b"".join(map(encoded, value)))
    if isinstance(value, str):
        return field(STRING, len(value.encode()), value.encode())
    size = (value.bit_length() + 7) // 8
    return field(NUMBERS.get(key, UINT16), size, value.to_bytes(size, "big"))


def record(country, continent):
    found = {}
    if country != "-":
        found["country"] = {"iso_code": country}
    if continent != "-":
        found["continent"] = {"code": continent}
    return found


def insert(nodes, network, leaf):
    """Puts a leaf into the tree; what is there of shorter prefixes goes on beside it."""
    shift = IPV4_BITS if network.version == 4 else 0
    length = network.prefixlen + shift
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


def database(lines):
    networks = sorted(lines, key=lambda line: line[0].prefixlen + (IPV4_BITS if line[0].version == 4 else 0))
    nodes, data = [[None, None]], b""
    for network, *codes in networks:
        insert(nodes, network, (len(data),))
        data += encoded(record(*codes))

    def pointer(child):
        if child is None:
            return len(nodes)
        return child if isinstance(child, int) else len(nodes) + SEPARATOR + child[0]

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


def main():
    lines = [line.split() for line in sys.stdin if line.strip()]
    parsed = [(ipaddress.ip_network(prefix), *codes) for prefix, *codes in lines]
    with open(sys.argv[1], "wb") as out:
        out.write(database(parsed))


if __name__ == "__main__":
    main()
