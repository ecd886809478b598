"""Beginning a conversation: who is in it, what it allows, what its log says."""

from __future__ import annotations

import pytest
import trio
from tests.features.conversations.kit import ADA, BOB, CYD, NOBODY, PLAIN, World

from secureconnect.errors import BadRequest, Forbidden, NotFound, SecureConnectError
from secureconnect.features.auth.model import User
from secureconnect.features.conversations.model import SettingsChange
from secureconnect.features.conversations.service import NewConversation
from secureconnect.ids import UserId, as_uuid, direct_conversation_id, is_uuid


async def refusal(world: World, new: NewConversation, error: type[SecureConnectError]) -> dict[str, object]:
    before = await world.conversations.list_of(ADA, limit=10)
    with pytest.raises(error) as refused:
        await world.conversations.create(ADA, new)
    assert await world.conversations.list_of(ADA, limit=10) == before
    return refused.value.details


async def test_the_creator_of_a_group_is_its_admin_whether_named_or_not(world: World) -> None:
    for others in ([BOB, CYD], [BOB, ADA, CYD, BOB]):
        summary, fresh = await world.conversations.create(ADA, NewConversation("group", others, title="  Lunch "))
        assert fresh
        assert (summary.role, summary.participants, summary.conversation.title) == ("admin", 3, "Lunch")
        assert is_uuid(summary.conversation.id)
        members = await world.conversations.members.list_of(BOB, summary.conversation.id)
        assert [(m.profile.user, m.role) for m in members] == [(ADA, "admin"), (BOB, "member"), (CYD, "member")]


async def test_a_new_conversation_is_the_first_entry_of_its_log_and_told_to_its_members(world: World) -> None:
    new = NewConversation("group", [BOB], title="Lunch", settings=PLAIN)
    summary, _ = await world.conversations.create(ADA, new)
    ((kind, body),) = await world.entries(summary.conversation.id)
    assert kind == "conversation.created"
    assert (body["sequence"], body["actor_id"], body["title"], body["participants_count"]) == (1, ADA, "Lunch", 2)
    assert [(p["username"], p["role"]) for p in body["participants"]] == [("ada", "admin"), ("bob", "member")]
    assert "@" not in str(body)
    assert world.words() == [
        ("signal", "added", "ada"),
        ("signal", "added", "bob"),
        ("event", "conversation.added", "ada"),
        ("event", "conversation.added", "bob"),
    ]
    assert all(told.tail == 1 for told in world.told)
    assert (summary.tail, summary.messages) == (1, 0)
    assert await world.visible_from(BOB, summary.conversation.id) == 1


async def test_people_are_named_by_exact_user_names_too(world: World) -> None:
    new = NewConversation("group", [BOB], participant_usernames=["cyd", "bob"])
    summary, _ = await world.conversations.create(ADA, new)
    assert summary.participants == 3
    details = await refusal(world, NewConversation("group", [], participant_usernames=["Cyd", "x\0"]), NotFound)
    assert details == {"field": "participant_usernames", "unknown": ["Cyd", "x\0"]}


async def test_a_direct_conversation_exists_once_for_a_pair(world: World) -> None:
    first, fresh = await world.conversations.create(ADA, NewConversation("direct", [ADA, BOB]))
    assert fresh
    assert first.conversation.id == direct_conversation_id(BOB, ADA)
    assert first.peer is not None
    assert first.peer.username == "bob"
    world.told.clear()
    again, fresh = await world.conversations.create(BOB, NewConversation("direct", [ADA], settings=PLAIN, title="mine"))
    assert not fresh
    assert again.conversation == first.conversation
    assert again.role == "member"
    assert world.told == []
    assert len(await world.entries(first.conversation.id)) == 1


async def test_two_who_begin_the_same_direct_conversation_at_once_get_the_same(world: World) -> None:
    fresh = []

    async def begin(me: UserId, other: UserId) -> None:
        _, is_fresh = await world.conversations.create(me, NewConversation("direct", [other]))
        fresh.append(is_fresh)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin, ADA, BOB)
        nursery.start_soon(begin, BOB, ADA)
    assert sorted(fresh) == [False, True]
    assert len(await world.entries(direct_conversation_id(ADA, BOB))) == 1


@pytest.mark.parametrize("others", [[], [ADA], [BOB, CYD]])
async def test_a_direct_conversation_has_exactly_two(world: World, others: list[UserId]) -> None:
    assert (await refusal(world, NewConversation("direct", others), BadRequest))["field"] == "participant_ids"


async def test_a_group_has_two_to_a_thousand_members(world: World) -> None:
    assert (await refusal(world, NewConversation("group"), BadRequest))["field"] == "participant_ids"
    crowd = [UserId(as_uuid(n.to_bytes(16, "big"))) for n in range(100, 1100)]
    for n, person in enumerate(crowd):
        await world.accounts.add(User(person, f"x{n}@x.org", f"x{n}", "X", 0, 0), "hash")
    assert (await refusal(world, NewConversation("group", crowd), BadRequest))["field"] == "participant_ids"
    assert (await refusal(world, NewConversation("group", [BOB] * 1001), BadRequest))["field"] == "participant_ids"
    summary, _ = await world.conversations.create(ADA, NewConversation("group", crowd[:999]))
    assert summary.participants == 1000
    ((_, body),) = await world.entries(summary.conversation.id)
    assert (len(body["participants"]), body["participants_count"]) == (50, 1000)


async def test_everybody_named_must_exist(world: World) -> None:
    details = await refusal(world, NewConversation("group", [BOB, NOBODY]), NotFound)
    assert details == {"field": "participant_ids", "unknown": [NOBODY]}
    details = await refusal(world, NewConversation("direct", ["bob"]), BadRequest)
    assert details["field"] == "participant_ids"


async def test_without_a_word_messages_are_encrypted_and_history_begins_with_the_own_join(world: World) -> None:
    summary, _ = await world.conversations.create(ADA, NewConversation("group", [BOB]))
    settings = summary.conversation.settings
    assert (settings.is_e2ee_enabled, settings.history_visibility, settings.ai_enabled) == (True, "from_join", False)
    summary, _ = await world.conversations.create(ADA, NewConversation("group", [BOB], settings=PLAIN))
    settings = summary.conversation.settings
    assert (settings.is_e2ee_enabled, settings.history_visibility, settings.message_retention_days) == (False, "all", 30)


async def test_ai_needs_a_conversation_that_it_can_read(world: World) -> None:
    with pytest.raises(Forbidden) as refused:
        await world.conversations.create(ADA, NewConversation("group", [BOB], settings=SettingsChange(ai_enabled=True)))
    assert refused.value.word == "E2EE_BLOCKED"
    wanted = SettingsChange(ai_enabled=True, is_e2ee_enabled=False)
    summary, _ = await world.conversations.create(ADA, NewConversation("group", [BOB], settings=wanted))
    assert summary.conversation.settings.ai_enabled


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("title", NewConversation("group", [BOB], title="x" * 201)),
        ("title", NewConversation("group", [BOB], title="a\0b")),
        ("avatar_url", NewConversation("group", [BOB], avatar_url="javascript:alert(1)")),
        ("avatar_url", NewConversation("group", [BOB], avatar_url="https://x.org/a b")),
        ("avatar_url", NewConversation("group", [BOB], avatar_url="https://x.org/" + "a" * 2048)),
    ],
)
async def test_a_wrong_look_is_named(world: World, field: str, new: NewConversation) -> None:
    assert (await refusal(world, new, BadRequest))["field"] == field
