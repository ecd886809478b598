"""What the settings bound, in the words of the parts that keep the bounds."""

from __future__ import annotations

from secureconnect.config import Settings
from secureconnect.hub import Limits as HubLimits
from secureconnect.server.front_connection import FrontLimits
from secureconnect.server.websocket_limits import GatewayLimits


def hub_limits(settings: Settings) -> HubLimits:
    return HubLimits(
        queue_max=settings.channel_queue_max,
        queue_bytes_max=settings.channel_queues_bytes_max,
        outbox_messages_max=settings.outbox_messages_max,
        outbox_bytes_max=settings.outbox_bytes_max,
        replay_entries_max=settings.replay_entries_max,
        replay_wait_s=settings.write_deadline_s,
        write_wait_s=settings.write_deadline_s,
        read_deadline_s=settings.store_deadline_s,
        reserve_wait_s=settings.store_deadline_s,
    )


def gateway_limits(settings: Settings) -> GatewayLimits:
    return GatewayLimits(
        sockets_max=settings.sockets_max,
        message_bytes_max=settings.socket_message_bytes_max,
        outbox_messages_max=settings.outbox_messages_max,
        outbox_bytes_max=settings.outbox_bytes_max,
        handshake_deadline_s=settings.handshake_deadline_s,
        write_deadline_s=settings.write_deadline_s,
        idle_s=settings.socket_idle_s,
        ping_s=settings.socket_ping_s,
        close_s=settings.close_deadline_s,
    )


def front_limits(settings: Settings) -> FrontLimits:
    return FrontLimits(
        connections_max=settings.http_connections_max,
        body_bytes_max=settings.request_body_bytes_max,
        head_deadline_s=settings.handshake_deadline_s,
        write_deadline_s=settings.write_deadline_s,
        request_deadline_s=settings.request_deadline_s,
    )
