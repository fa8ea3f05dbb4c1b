"""Records of `memory.sh`: what connections that never close cost a server.

    lab.sh record memory idle-ours|idle-kernel SCRATCH RESULTS run=UNIX connections=N ...

`lab.measurements.idle_memory` describes the words.
"""

from lab.measurements import idle_memory, make


def main(words: list[str]) -> None:
    make("memory", idle_memory.KINDS, words)
