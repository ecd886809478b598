"""`/v1/messages` and a conversation's log (contract.md §2.7, interface.md §4, §9): bodies pass through as the bytes stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from secureconnect.features.log.store import EntryRefused
from secureconnect.features.messages import model
from secureconnect.features.messages.model import Message, MessageType, NewMessage
from secureconnect.features.messages.service import Messages
from secureconnect.ids import ConversationId, MessageId
from secureconnect.server.endpoints import Answer, Context, Endpoint
from secureconnect.server.routes.fields import After, Limit, Uuid
from secureconnect.server.wire import encode

STORED: Final = 201
DUPLICATE: Final = 200


class SendParams(msgspec.Struct, kw_only=True):
    """A message to send. `client_message_id` makes repeating the request safe."""

    conversation_id: Uuid
    content: str
    is_encrypted: bool = False
    message_type: MessageType = "text"
    metadata: dict[str, object] | None = None
    client_message_id: str | None = None
    reply_to_message_id: Uuid | None = None


class ListParams(msgspec.Struct, kw_only=True):
    """`cursor` and `page_state` are the same thing under two names; the id of the last message seen serves too."""

    conversation_id: Uuid
    limit: Limit = model.HISTORY_DEFAULT
    cursor: Annotated[str, msgspec.Meta(max_length=128)] | None = None


class MessageParams(msgspec.Struct, kw_only=True):
    """One message; its conversation is found when it is not named."""

    message_id: Uuid
    conversation_id: Uuid | None = None


class EditParams(MessageParams, kw_only=True):
    """`is_encrypted`: as it was when absent."""

    content: str
    is_encrypted: bool | None = None


class LogParams(msgspec.Struct, kw_only=True):
    conversation_id: Uuid
    after: After = 0
    limit: Limit = model.LOG_DEFAULT


class MessageObject(Message, kw_only=True, frozen=True):
    """A message as it is read. A deleted one has `deleted_at` and no content."""

    sequence: int
    message_number: int


class SentObject(MessageObject, kw_only=True, frozen=True):
    """`duplicate`: the first result of this `client_message_id` again."""

    ack: str
    duplicate: bool


class DeletedObject(MessageObject, kw_only=True, frozen=True):
    """The tombstone, and a sentence for people."""

    message: str


class HistoryObject(msgspec.Struct):
    messages: list[MessageObject]
    next_page_state: str | None
    next_cursor: str | None
    has_more: bool


class EnvelopeObject(msgspec.Struct):
    """An entry as every socket and poll shows it."""

    event: str
    channel: str
    sequence: int
    data: dict[str, object]


class LogObject(msgspec.Struct):
    """`first`: the lowest sequence that this member may read. `head`: the log's last."""

    entries: list[EnvelopeObject]
    first: int
    head: int


def endpoints(messages: Messages) -> list[Endpoint]:
    routes = MessageRoutes(messages)
    return [
        Endpoint(
            name="messages.send",
            method="POST",
            path="/v1/messages",
            params=SendParams,
            call=routes.send,
            result=SentObject,
            permission="member",
            rate="messages",
            overlaps=True,
            status=STORED,
            aliases={"content_type": "message_type", "idempotency_key": "client_message_id"},
            headers={"idempotency-key": "client_message_id"},
            features=("send", "live_delivery"),
            summary="Send a message. 201 stored, 200 the first result of the same client_message_id again.",
        ),
        Endpoint(
            name="messages.list",
            method="GET",
            path="/v1/messages",
            params=ListParams,
            call=routes.list,
            result=HistoryObject,
            permission="member",
            parallel=True,
            aliases={"page_state": "cursor"},
            features=("history",),
            summary="Messages of a conversation as they read now, the newest first.",
        ),
        Endpoint(
            name="messages.get",
            method="GET",
            path="/v1/messages/:message_id",
            params=MessageParams,
            call=routes.get,
            result=MessageObject,
            permission="member",
            features=("history",),
            summary="One message as it reads now.",
        ),
        Endpoint(
            name="messages.edit",
            method="PATCH",
            path="/v1/messages/:message_id",
            params=EditParams,
            call=routes.edit,
            result=MessageObject,
            errors=(EntryRefused,),
            permission="owner",
            rate="messages",
            features=("send", "live_delivery"),
            summary="Replace the content of an own message.",
        ),
        Endpoint(
            name="messages.delete",
            method="DELETE",
            path="/v1/messages/:message_id",
            params=MessageParams,
            call=routes.delete,
            result=DeletedObject,
            errors=(EntryRefused,),
            permission="owner",
            rate="messages",
            features=("send", "live_delivery"),
            summary="Delete an own message, or any in a group as its admin; what is left is a tombstone.",
        ),
        Endpoint(
            name="conversations.log",
            method="GET",
            path="/v1/conversations/:conversation_id/log",
            params=LogParams,
            call=routes.log,
            result=LogObject,
            permission="member",
            parallel=True,
            features=("history",),
            summary="The conversation's log above a sequence: the same envelopes as on the socket.",
        ),
    ]


class MessageRoutes:
    """From params to the service; what comes back is spliced, not built."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    async def send(self, context: Context, params: SendParams) -> Answer:
        new = NewMessage(
            content=params.content,
            is_encrypted=params.is_encrypted,
            message_type=params.message_type,
            metadata=params.metadata,
            client_message_id=params.client_message_id,
            reply_to_message_id=params.reply_to_message_id,
        )
        conversation = ConversationId(params.conversation_id.lower())
        sent = await self._messages.send(context.me.user, conversation, new, placed=context.placed)
        duplicate = b"true" if sent.duplicate else b"false"
        data = b'%b,"ack":"%b","duplicate":%b}' % (sent.body[:-1], sent.ack.encode(), duplicate)
        return Answer(msgspec.Raw(data), status=DUPLICATE if sent.duplicate else STORED)

    async def list(self, context: Context, params: ListParams) -> msgspec.Raw:
        conversation = ConversationId(params.conversation_id.lower())
        page = await self._messages.history(context.me.user, conversation, limit=params.limit, cursor=params.cursor)
        following = encode(page.next)
        return msgspec.Raw(
            b'{"messages":%b,"next_page_state":%b,"next_cursor":%b,"has_more":%b}'
            % (array(page.messages), following, following, b"true" if page.next else b"false")
        )

    async def get(self, context: Context, params: MessageParams) -> msgspec.Raw:
        message, conversation = _named(params)
        return msgspec.Raw(await self._messages.get(context.me.user, message, conversation=conversation))

    async def edit(self, context: Context, params: EditParams) -> msgspec.Raw:
        message, conversation = _named(params)
        body = await self._messages.edit(
            context.me.user, message, params.content, conversation=conversation, is_encrypted=params.is_encrypted
        )
        return msgspec.Raw(body)

    async def delete(self, context: Context, params: MessageParams) -> msgspec.Raw:
        message, conversation = _named(params)
        body = await self._messages.delete(context.me.user, message, conversation=conversation)
        return msgspec.Raw(b'%b,"message":"Message deleted"}' % body[:-1])

    async def log(self, context: Context, params: LogParams) -> msgspec.Raw:
        conversation = ConversationId(params.conversation_id.lower())
        part = await self._messages.entries(context.me.user, conversation, after=params.after, limit=params.limit)
        return msgspec.Raw(b'{"entries":%b,"first":%d,"head":%d}' % (array(part.entries), part.first, part.head))


def _named(params: MessageParams) -> tuple[MessageId, ConversationId | None]:
    conversation = ConversationId(params.conversation_id.lower()) if params.conversation_id else None
    return MessageId(params.message_id.lower()), conversation


def array(objects: Sequence[bytes]) -> bytes:
    """JSON objects as one JSON array, none of them looked into."""
    return b"[%b]" % b",".join(objects)
