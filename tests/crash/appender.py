"""A program on the fake disk: appends to a few conversations at once, and writes down each append that was acknowledged.

    appender.py DIRECTORY SYNCHRONOUS APPENDS

What it says is in DIRECTORY/acks: one line `conversation key sequence` for each, written when the append has returned.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from secureconnect.backends.sql.log import SqlLogStore
from secureconnect.backends.sql.sqlite import SqliteLimits, open_sqlite
from secureconnect.features.log.model import MESSAGE_CREATED, NewEntry
from secureconnect.ids import ConversationId, MessageId, UserId

CONVERSATIONS = 5
SENDERS = 4
"""Of each conversation."""
CHECKPOINT_AFTER = 30
"""Small, so that the write-ahead log is copied into the file, and begins anew, many times in a run."""


async def main(directory: Path, synchronous: str, appends: int) -> None:
    acks = os.open(directory / "acks", os.O_WRONLY | os.O_CREAT)
    limits = SqliteLimits(checkpoint_after=CHECKPOINT_AFTER)
    async with open_sqlite(directory / "log.sqlite3", limits=limits, synchronous=synchronous) as engine:
        store = SqlLogStore(engine)

        async def send(conversation: ConversationId, sender: int) -> None:
            for n in range(appends // (CONVERSATIONS * SENDERS)):
                key = f"{conversation}.{sender}.{n}"
                entry = NewEntry(key, MESSAGE_CREATED, b'{"text":"%b"}' % (b"x" * 300), UserId("ada"), n, MessageId(key))
                (appended,) = await store.append(conversation, [entry])
                os.write(acks, f"{conversation} {key} {appended.entry.sequence}\n".encode())

        async with trio.open_nursery() as nursery:
            for place in range(CONVERSATIONS):
                for sender in range(SENDERS):
                    nursery.start_soon(send, ConversationId(f"c{place}"), sender)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
