"""`/v1/messages` and the log as clients see them: names, types and codes, through dispatch."""

from __future__ import annotations

from typing import Any

import pytest
from tests.features.conversations.kit import ADA, BOB, CYD, NOWHERE, open_world, shown
from tests.server.routes.kit import Face

from secureconnect.server.endpoints import Endpoint


@pytest.fixture
async def face() -> Face:
    return Face(await open_world())


async def test_a_send_answers_the_message_its_numbers_and_what_is_true_of_it(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    sent = await face.call("messages.send", expect=201, conversation_id=group, content="hi", content_type="image")
    assert sent == {
        "sequence": 2,
        "message_number": 1,
        "message_id": sent["message_id"],
        "conversation_id": group,
        "sender_id": ADA,
        "content": "hi",
        "is_encrypted": False,
        "message_type": "image",
        "content_type": "image",
        "sent_at": "2026-01-09T23:06:40.000Z",
        "created_at": "2026-01-09T23:06:40.000Z",
        "ack": "stored",
        "duplicate": False,
    }


async def test_a_repeated_send_is_200_and_the_first_result(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    first = await face.call("messages.send", expect=201, conversation_id=group, content="hi", client_message_id="c1")
    again = await face.call("messages.send", expect=200, conversation_id=group, content="ho", idempotency_key="c1")
    assert again == first | {"duplicate": True}
    for _ in range(2):
        await face.call("messages.send", expect=201, conversation_id=group, content="hi")


@pytest.mark.parametrize(
    ("values", "status", "code", "field"),
    [
        ({}, 400, "VALIDATION_ERROR", "content"),
        ({"content": ""}, 400, "VALIDATION_ERROR", "content"),
        ({"content": 5}, 400, "VALIDATION_ERROR", "content"),
        ({"content": "x" * 10_001}, 413, "TOO_LARGE", "content"),
        ({"content": "x", "message_type": "sticker"}, 400, "VALIDATION_ERROR", "message_type"),
        ({"content": "x", "metadata": [1]}, 400, "VALIDATION_ERROR", "metadata"),
        ({"content": "x", "metadata": {"k": "v" * 1001}}, 400, "VALIDATION_ERROR", "metadata"),
        ({"content": "x", "client_message_id": ""}, 400, "VALIDATION_ERROR", "client_message_id"),
        ({"content": "x", "client_message_id": "c" * 129}, 400, "VALIDATION_ERROR", "client_message_id"),
        ({"content": "x", "reply_to_message_id": "nonsense"}, 400, "VALIDATION_ERROR", "reply_to_message_id"),
        ({"content": "x", "reply_to_message_id": NOWHERE}, 400, "VALIDATION_ERROR", "reply_to_message_id"),
    ],
)
async def test_a_wrong_send_names_the_field(face: Face, values: dict[str, object], status: int, code: str, field: str) -> None:
    group = await face.world.group(ADA, BOB)
    answered, word, details = await face.refusal("messages.send", conversation_id=group, **values)
    assert (answered, word, details["field"]) == (status, code, field)


async def test_nesting_without_end_is_refused(face: Face) -> None:
    """What JSON's decoder lets through is still deeper than the way from here to the log may be."""
    deep: Any = "x"
    for _ in range(990):
        deep = [deep]
    group = await face.world.group(ADA, BOB)
    status, _, details = await face.refusal("messages.send", conversation_id=group, content="x", metadata={"k": deep})
    assert (status, details["field"]) == (400, "metadata")


async def test_plain_text_where_encryption_is_on_is_said_in_a_word(face: Face) -> None:
    made = await face.call("conversations.create", expect=201, type="group", participant_ids=[BOB])
    status, word, details = await face.refusal("messages.send", conversation_id=made["conversation_id"], content="hi")
    assert (status, word, details["reason"]) == (400, "VALIDATION_ERROR", "E2EE_REQUIRED")


async def test_both_paging_styles_read_the_same_pages(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    sent = [await face.world.say(ADA, group, str(n)) for n in range(5)]
    first = await face.call("messages.list", BOB, conversation_id=group, limit="3")
    assert first["messages"] == sent[:1:-1]
    assert first["has_more"] is True
    assert first["next_cursor"] == first["next_page_state"]
    for style in ("cursor", "page_state"):
        second = await face.call("messages.list", BOB, conversation_id=group, **{style: first["next_cursor"]})
        assert second == {"messages": sent[1::-1], "next_page_state": None, "next_cursor": None, "has_more": False}
    by_id = await face.call("messages.list", BOB, conversation_id=group, cursor=sent[2]["message_id"])
    assert by_id["messages"] == second["messages"]
    assert (await face.call("messages.list", conversation_id=group, cursor=""))["messages"] == sent[::-1]


async def test_history_is_twenty_when_nothing_is_said_and_a_hundred_at_most(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    for n in range(101):
        await face.world.say(ADA, group, str(n))
    assert len((await face.call("messages.list", conversation_id=group))["messages"]) == 20
    assert len((await face.call("messages.list", conversation_id=group, limit=1000))["messages"]) == 100


@pytest.mark.parametrize(
    "values", [{"limit": 0}, {"limit": "NaN"}, {"cursor": "%%%"}, {"page_state": "bm8"}, {"cursor": "x" * 129}]
)
async def test_a_page_that_is_none_is_refused(face: Face, values: dict[str, object]) -> None:
    group = await face.world.group(ADA, BOB)
    status, _, details = await face.refusal("messages.list", conversation_id=group, **values)
    assert (status, details["field"]) == (400, "limit" if "limit" in values else "cursor")


async def test_edit_and_delete_need_no_conversation(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    message = (await face.world.say(BOB, group, "helo"))["message_id"]
    edited = await face.call("messages.edit", BOB, message_id=message, content="hello")
    assert (edited["content"], "edited_at" in edited) == ("hello", True)
    assert await face.call("messages.get", message_id=message.upper(), conversation_id=group) == edited
    deleted = await face.call("messages.delete", ADA, message_id=message)
    assert (deleted["message"], "content" in deleted) == ("Message deleted", False)
    assert await face.call("messages.delete", BOB, message_id=message) == deleted
    assert (await face.refusal("messages.edit", BOB, message_id=message, content="x"))[:2] == (409, "CONFLICT")


@pytest.mark.parametrize("name", ["get", "edit", "delete"])
async def test_strangers_get_403_and_unknown_ids_404(face: Face, name: str) -> None:
    group = await face.world.group(ADA, BOB)
    message = (await face.world.say(BOB, group))["message_id"]
    assert (await face.refusal(f"messages.{name}", CYD, message_id=message, content="x"))[:2] == (403, "FORBIDDEN")
    assert (await face.refusal(f"messages.{name}", CYD, message_id=NOWHERE, content="x"))[:2] == (404, "NOT_FOUND")
    assert (await face.refusal(f"messages.{name}", CYD, message_id="poll", content="x"))[0] == 400


async def test_the_log_is_the_envelopes_and_where_they_end(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    sent = await face.world.say(ADA, group)
    log = await face.call("conversations.log", BOB, conversation_id=group, after="1", limit="10")
    assert log == {
        "entries": [{"event": "message.created", "channel": f"conversation:{group}", "sequence": 2, "data": sent}],
        "first": 1,
        "head": 2,
    }
    assert len((await face.call("conversations.log", conversation_id=group))["entries"]) == 2
    for after in (-1, 2**63, "x"):
        assert (await face.refusal("conversations.log", conversation_id=group, after=after))[2]["field"] == "after"


async def test_reading_back_runs_aside_on_a_socket(face: Face) -> None:
    """A page of history must not stand before the next message of the same socket."""
    aside = {name for name, row in face.rows.items() if row.parallel}
    assert aside == {"messages.list", "conversations.log"}
    send: Endpoint = face.rows["messages.send"]
    assert send.headers == {"idempotency-key": "client_message_id"}
    assert shown(b"{}") == {}
