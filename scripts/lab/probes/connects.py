"""Times to connect to a service with several addresses, in ways of Python's and in re-creations of others.

    lab.sh probe connects WAY SAMPLES CAP PORT ADDRESS...

WAY: `sequential` (socket.create_connection, 1 s for each address), `staggered-250` and `staggered-10`
(asyncio's staggered race, the Happy Eyeballs of Python), `all` (every address at once). A sample ends
after CAP seconds. Prints one JSON object: the times in milliseconds in their order, null where none
connected.
"""

import asyncio
import json
import selectors
import socket
import sys
import time
from asyncio import staggered
from collections.abc import Callable
from functools import partial

from lab import UsageError

Address = tuple[str, int]


def family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def sequential(addresses: list[Address], cap: float) -> bool:
    deadline = time.monotonic() + cap
    for address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        try:
            socket.create_connection(address, timeout=min(1.0, left)).close()
        except OSError:
            continue
        return True
    return False


async def attempt(address: Address) -> socket.socket:
    one = socket.socket(family(address), socket.SOCK_STREAM)
    one.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(one, address)
    except BaseException:
        one.close()
        raise
    return one


async def staggered_race(addresses: list[Address], cap: float, delay: float) -> bool:
    attempts = [partial(attempt, address) for address in addresses]
    try:
        winner, _, _ = await asyncio.wait_for(staggered.staggered_race(attempts, delay), cap)
    except TimeoutError:
        return False
    if winner is not None:
        winner.close()
    return winner is not None


def all_at_once(addresses: list[Address], cap: float) -> bool:
    deadline = time.monotonic() + cap
    waiting = selectors.DefaultSelector()
    won = False
    for address in addresses:
        one = socket.socket(family(address), socket.SOCK_STREAM)
        one.setblocking(False)
        one.connect_ex(address)
        waiting.register(one, selectors.EVENT_WRITE)
    while waiting.get_map() and not won and time.monotonic() < deadline:
        for key, _ in waiting.select(deadline - time.monotonic()):
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            won = won or ready.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            waiting.unregister(ready)
            ready.close()
    for key in list(waiting.get_map().values()):
        loser = key.fileobj
        assert isinstance(loser, socket.socket)
        loser.close()
    waiting.close()
    return won


def way(name: str) -> Callable[[list[Address], float], bool]:
    match name:
        case "sequential":
            return sequential
        case "all":
            return all_at_once
        case "staggered-250":
            return lambda addresses, cap: asyncio.run(staggered_race(addresses, cap, 0.25))
        case "staggered-10":
            return lambda addresses, cap: asyncio.run(staggered_race(addresses, cap, 0.01))
    raise UsageError


def main(words: list[str]) -> None:
    match words:
        case [name, samples, cap, port, *hosts] if hosts:
            connect = way(name)
            addresses = [(host, int(port)) for host in hosts]
        case _:
            raise UsageError
    times: list[float | None] = []
    for _ in range(int(samples)):
        begun = time.monotonic()
        connected = connect(addresses, float(cap))
        times.append(round((time.monotonic() - begun) * 1000, 3) if connected else None)
    json.dump({"times_ms": times}, sys.stdout)
    print()
