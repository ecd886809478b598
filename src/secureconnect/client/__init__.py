"""The Python client, on trio and asyncio alike: live events that survive lost connections, and sends that are stored once.

    async with connect("http://127.0.0.1:8080", token=token) as client:
        message = await client.send(conversation_id, "Hello")     # returns when the server has stored it
        async for event in client.events():                       # everything, once, in order per channel
            print(event.name, event.data)

It reconnects with jitter, resumes every channel from its own cursor, falls back to long-polling by itself when no socket can be
had and goes back when one can, and keeps what was sent in an outbox under one `client_message_id` until the answer is known.
"""

from __future__ import annotations

from secureconnect.client.client import Client, State
from secureconnect.client.connect import connect
from secureconnect.client.errors import AuthenticationLost, ClientError, NotConnected, NotSendable, ServerRefused
from secureconnect.client.events import Event
from secureconnect.client.outbox import OutboxFull

__all__ = [
    "AuthenticationLost",
    "Client",
    "ClientError",
    "Event",
    "NotConnected",
    "NotSendable",
    "OutboxFull",
    "ServerRefused",
    "State",
    "connect",
]
