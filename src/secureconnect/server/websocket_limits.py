"""The bounds of the socket face, one for each row of failure-policy.md §1 that concerns a socket, and its totals."""

from __future__ import annotations

from dataclasses import dataclass, field

from secureconnect.server.session import ASIDE_MAX, WAITING_MAX


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """Defaults are the policy's; each is a setting of the same name in capitals.

    `outbox_*`: what waits for one socket beyond the kernel's buffer. `channels_max`: subscriptions of one socket.
    `handshake_deadline_s` bounds the upgrade and, separately, the wait for a first frame with the token.
    """

    sockets_max: int = 1000
    message_bytes_max: int = 1 << 20
    outbox_messages_max: int = 5000
    outbox_bytes_max: int = 1 << 20
    commands_waiting_max: int = WAITING_MAX
    commands_aside_max: int = ASIDE_MAX
    channels_max: int = 5000
    handshake_deadline_s: float = 10.0
    write_deadline_s: float = 10.0
    idle_s: float = 60.0
    ping_s: float = 25.0
    close_s: float = 2.0


@dataclass(slots=True)
class Counters:
    """Totals since the start. `closed`: by the word that both sides can read."""

    opened: int = 0
    refused: int = 0
    closed: dict[str, int] = field(default_factory=dict)
    unexpected: int = 0
