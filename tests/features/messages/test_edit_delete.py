"""Editing and deleting: whose right it is, and what is left to read."""

from __future__ import annotations

import pytest
import trio
from tests.features.conversations.kit import ADA, BOB, CYD, DAN, NOWHERE, World, shown

from secureconnect.errors import BadRequest, Conflict, Forbidden, NotFound, TooLarge
from secureconnect.features.conversations.model import SettingsChange
from secureconnect.features.messages.model import NewMessage
from secureconnect.ids import ConversationId, MessageId

FROM_JOIN = SettingsChange(is_e2ee_enabled=False, history_visibility="from_join")


async def test_an_edit_replaces_what_everybody_reads(world: World) -> None:
    group = await world.group(ADA, BOB)
    first = await world.say(BOB, group, "helo")
    world.clock.advance(60)
    edited = shown(await world.messages.edit(BOB, MessageId(first["message_id"]), "hello"))
    assert edited == first | {"content": "hello", "edited_at": "2026-01-09T23:07:40.000Z"}
    assert shown(await world.messages.get(ADA, MessageId(first["message_id"]))) == edited
    created, told = (await world.entries(group))[1:]
    assert created == ("message.created", edited), "replay shows the edited text"
    kind, body = told
    assert (kind, body["message_id"], body["content"]) == ("message.edited", first["message_id"], "hello")
    assert (body["message_sequence"], body["sequence"], body["sender_id"]) == (2, 3, BOB)


async def test_the_same_content_again_is_no_edit(world: World) -> None:
    group = await world.group(ADA, BOB)
    first = await world.say(BOB, group, "hello")
    assert shown(await world.messages.edit(BOB, MessageId(first["message_id"]), "hello")) == first
    assert len(await world.entries(group)) == 2


async def test_nobody_but_the_sender_edits(world: World) -> None:
    group = await world.group(ADA, BOB)
    message = MessageId((await world.say(BOB, group))["message_id"])
    for who in (ADA, CYD):
        with pytest.raises(Forbidden):
            await world.messages.edit(who, message, "mine")
    await world.conversations.members.leave(BOB, group)
    with pytest.raises(Forbidden):
        await world.messages.edit(BOB, message, "gone")


async def test_an_edit_obeys_the_rules_of_sending(world: World) -> None:
    group = await world.group(ADA, BOB)
    message = MessageId((await world.say(BOB, group))["message_id"])
    with pytest.raises(BadRequest):
        await world.messages.edit(BOB, message, "")
    with pytest.raises(TooLarge):
        await world.messages.edit(BOB, message, "x" * 10_001)
    await world.conversations.set_rules(ADA, group, SettingsChange(is_e2ee_enabled=True))
    with pytest.raises(BadRequest) as refused:
        await world.messages.edit(BOB, message, "plain")
    assert refused.value.details["reason"] == "E2EE_REQUIRED"
    edited = shown(await world.messages.edit(BOB, message, "b64", is_encrypted=True))
    assert (edited["content"], edited["is_encrypted"]) == ("b64", True)


async def test_a_deleted_message_is_a_tombstone_everywhere(world: World) -> None:
    group = await world.group(ADA, BOB)
    sent = await world.messages.send(BOB, group, NewMessage(content="secret", metadata={"k": "secret"}))
    message = MessageId(shown(sent.body)["message_id"])
    await world.messages.edit(BOB, message, "more secret")
    tombstone = shown(await world.messages.delete(BOB, message))
    assert tombstone["deleted_at"] == "2026-01-09T23:06:40.000Z"
    assert (tombstone["sequence"], tombstone["message_number"], tombstone["sender_id"]) == (2, 1, BOB)
    assert not {"content", "metadata", "edited_at"} & set(tombstone)
    assert shown(await world.messages.get(ADA, message)) == tombstone
    (listed,) = (await world.messages.history(ADA, group, limit=10)).messages
    assert shown(listed) == tombstone
    entries = await world.entries(group)
    assert "secret" not in str(entries)
    assert [kind for kind, _ in entries[1:]] == ["message.created", "message.edited", "message.deleted"]
    assert entries[-1][1]["actor_id"] == BOB


async def test_deleting_again_changes_nothing(world: World) -> None:
    group = await world.group(ADA, BOB)
    message = MessageId((await world.say(BOB, group))["message_id"])
    first = await world.messages.delete(BOB, message)
    assert await world.messages.delete(ADA, message) == first
    assert len(await world.entries(group)) == 3
    with pytest.raises(Conflict):
        await world.messages.edit(BOB, message, "back")


async def test_two_who_delete_at_once_make_one_entry(world: World) -> None:
    group = await world.group(ADA, BOB)
    message = MessageId((await world.say(BOB, group))["message_id"])
    for who in (ADA, BOB):  # both standings are known, so that both deletions take the same steps
        await world.messages.get(who, message)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.messages.delete, BOB, message)
        nursery.start_soon(world.messages.delete, ADA, message)
    assert len(await world.entries(group)) == 3


async def test_admins_moderate_groups_but_not_direct_conversations(world: World) -> None:
    group = await world.group(ADA, BOB, CYD)
    message = MessageId((await world.say(BOB, group))["message_id"])
    with pytest.raises(Forbidden):
        await world.messages.delete(CYD, message)
    await world.messages.delete(ADA, message)
    direct = await world.direct(ADA, BOB)
    message = MessageId((await world.say(BOB, direct))["message_id"])
    with pytest.raises(Forbidden):
        await world.messages.delete(ADA, message)


async def test_a_message_is_found_by_its_id_alone_and_hidden_from_strangers(world: World) -> None:
    group, other = await world.group(ADA, BOB), await world.group(ADA, BOB)
    sent = await world.say(BOB, group)
    message = MessageId(sent["message_id"])
    assert shown(await world.messages.get(ADA, message)) == sent
    assert shown(await world.messages.get(ADA, message, conversation=group)) == sent
    nothing = MessageId(NOWHERE)
    for attempt, error in (
        (world.messages.get(DAN, message), Forbidden),
        (world.messages.delete(DAN, message), Forbidden),
        (world.messages.get(DAN, nothing), NotFound),
        (world.messages.edit(DAN, nothing, "x"), NotFound),
        (world.messages.get(ADA, message, conversation=other), NotFound),
        (world.messages.get(ADA, message, conversation=ConversationId(NOWHERE)), NotFound),
    ):
        with pytest.raises(error):
            await attempt


async def test_a_message_before_the_own_join_does_not_exist(world: World) -> None:
    group = await world.group(ADA, BOB, settings=FROM_JOIN)
    before = MessageId((await world.say(ADA, group))["message_id"])
    await world.conversations.members.add(ADA, group, [CYD])
    await world.conversations.members.set_role(ADA, group, CYD, "admin")
    for attempt in (world.messages.get(CYD, before), world.messages.delete(CYD, before)):
        with pytest.raises(NotFound):
            await attempt
