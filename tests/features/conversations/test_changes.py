"""Names, pictures, settings, lists, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from tests.features.conversations.kit import ADA, BOB, CYD, DAN, NOWHERE, World

from secureconnect.errors import BadRequest, Forbidden, NotFound
from secureconnect.features.conversations.cursor import read_cursor, write_cursor
from secureconnect.features.conversations.model import Settings, SettingsChange, summary_object
from secureconnect.features.conversations.service import Looks
from secureconnect.features.log.model import NewEntry
from secureconnect.ids import ConversationId, MessageId, UserId


async def test_an_admin_renames_and_the_log_says_what_changed(world: World) -> None:
    group = await world.group(ADA, BOB)
    world.clock.advance(60)
    summary = await world.conversations.rename(ADA, group, Looks(title=" Dinner ", has_title=True))
    assert summary.conversation.title == "Dinner"
    kind, body = (await world.entries(group))[-1]
    assert kind == "conversation.changed"
    assert body["actor_id"] == ADA
    assert body["changes"] == {"title": "Dinner", "name": "Dinner", "updated_at": "2026-01-09T23:07:40.000Z"}
    assert world.words() == [("signal", "changed", "ada")]


async def test_what_is_taken_away_is_null_and_what_is_not_named_stays(world: World) -> None:
    group = await world.group(ADA, BOB)
    looks = Looks(avatar_url="https://x.org/a.png", has_avatar_url=True)
    summary = await world.conversations.rename(ADA, group, looks)
    assert (summary.conversation.title, summary.conversation.avatar_url) == ("Lunch", "https://x.org/a.png")
    await world.conversations.rename(ADA, group, Looks(has_avatar_url=True))
    _, body = (await world.entries(group))[-1]
    assert body["changes"] == {"avatar_url": None}


async def test_a_change_that_changes_nothing_is_no_entry(world: World) -> None:
    group = await world.group(ADA, BOB)
    await world.conversations.rename(ADA, group, Looks(title="Lunch", has_title=True))
    await world.conversations.set_rules(ADA, group, SettingsChange(is_e2ee_enabled=False))
    assert len(await world.entries(group)) == 1
    assert world.told == []


async def test_only_admins_rename_and_set(world: World) -> None:
    group = await world.group(ADA, BOB)
    for who, where, error in ((BOB, group, Forbidden), (CYD, group, Forbidden), (ADA, NOWHERE, NotFound)):
        with pytest.raises(error):
            await world.conversations.rename(who, where, Looks(title="x", has_title=True))
        with pytest.raises(error):
            await world.conversations.set_rules(who, where, SettingsChange(is_e2ee_enabled=True))


async def test_nothing_named_is_refused(world: World) -> None:
    group = await world.group(ADA, BOB)
    with pytest.raises(BadRequest):
        await world.conversations.rename(ADA, group, Looks())
    with pytest.raises(BadRequest):
        await world.conversations.set_rules(ADA, group, SettingsChange())


async def test_encryption_that_is_switched_on_switches_ai_off_and_everybody_hears(world: World) -> None:
    group = await world.group(ADA, BOB, settings=SettingsChange(is_e2ee_enabled=False, ai_enabled=True))
    summary = await world.conversations.set_rules(ADA, group, SettingsChange(is_e2ee_enabled=True))
    assert (summary.conversation.settings.is_e2ee_enabled, summary.conversation.settings.ai_enabled) == (True, False)
    _, body = (await world.entries(group))[-1]
    assert (body["changes"]["is_e2ee_enabled"], body["changes"]["ai_enabled"]) == (True, False)
    with pytest.raises(Forbidden) as refused:
        await world.conversations.set_rules(ADA, group, SettingsChange(ai_enabled=True))
    assert refused.value.word == "E2EE_BLOCKED"
    standing = await world.access.standing(group, BOB)
    assert standing.rules.is_e2ee_enabled, "the cache was told"


async def test_the_creator_deletes_a_group_and_everybody_is_told(world: World) -> None:
    group = await world.group(ADA, BOB, CYD)
    message = await world.say(BOB, group)
    world.told.clear()
    await world.conversations.delete(ADA, group)
    assert world.words()[:6] == [
        (kind, word, name)
        for name in ("ada", "bob", "cyd")
        for kind, word in (("signal", "removed"), ("event", "conversation.removed"))
    ]
    assert [told.tail for told in world.told[:6]] == [2] * 6, "before anything is waited for"
    assert {told.body["reason"] for told in world.told} == {"deleted"}
    for who in (ADA, BOB):
        with pytest.raises(NotFound):
            await world.conversations.get(who, group)
        with pytest.raises(NotFound):
            await world.messages.get(who, MessageId(message["message_id"]))
        assert (await world.conversations.list_of(who, limit=10)).summaries == []
    left = (await world.entries(group))[2:]
    assert [(kind, body["user_id"], body["reason"]) for kind, body in left] == [
        ("member.left", user, "deleted") for user in (ADA, BOB, CYD)
    ]
    with pytest.raises(NotFound):
        await world.conversations.delete(ADA, group)


async def test_a_group_that_was_deleted_while_its_request_died_is_left_by_every_socket(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = await world.group(ADA, BOB)
    delete = world.store.delete
    with trio.CancelScope() as request:

        async def commit_and_be_cancelled(where: ConversationId, farewell: Callable[[UserId], NewEntry]) -> None:
            await delete(where, farewell)
            request.cancel()
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(world.store, "delete", commit_and_be_cancelled)
        await world.conversations.delete(ADA, group)
    assert world.told == []
    assert await world.announcer.sweep()
    assert world.words() == [("signal", "removed", "ada"), ("signal", "removed", "bob")]


async def test_only_its_creator_deletes_a_group_and_nobody_a_direct_conversation(world: World) -> None:
    group = await world.group(ADA, BOB)
    await world.conversations.members.set_role(ADA, group, BOB, "admin")
    for who, where, error in ((BOB, group, Forbidden), (CYD, group, Forbidden), (ADA, NOWHERE, NotFound)):
        with pytest.raises(error):
            await world.conversations.delete(who, where)
    direct = await world.direct(ADA, BOB)
    with pytest.raises(BadRequest) as refused:
        await world.conversations.delete(ADA, direct)
    assert refused.value.details["reason"] == "DIRECT_CONVERSATION"
    await world.conversations.members.leave(ADA, group)
    with pytest.raises(Forbidden):
        await world.conversations.delete(ADA, group)


def test_settings_that_are_not_named_stay() -> None:
    before = Settings(is_e2ee_enabled=False, message_retention_days=7, members_may_invite=True, history_visibility="all")
    after = SettingsChange(recording_enabled=True).applied_to(before)
    assert after == Settings(False, False, True, 7, True, "all")
    assert SettingsChange(members_may_invite=False).applied_to(before).members_may_invite is False


async def test_the_list_is_by_activity_and_pages_without_gaps(world: World) -> None:
    groups: list[ConversationId] = []
    for _ in range(5):
        world.clock.advance(1)
        groups.append(await world.group(ADA, BOB))
    world.clock.advance(1)
    await world.say(BOB, groups[0])
    wanted = [groups[0], *reversed(groups[1:])]
    seen: list[ConversationId] = []
    after = None
    while True:
        page = await world.conversations.list_of(ADA, limit=2, after=after)
        seen += [summary.conversation.id for summary in page.summaries]
        if page.next is None:
            break
        after = read_cursor(write_cursor(page.next))
    assert seen == wanted
    page = await world.conversations.list_of(ADA, limit=2, offset=3)
    assert [summary.conversation.id for summary in page.summaries] == wanted[3:]
    assert page.next is None
    assert (await world.conversations.list_of(DAN, limit=2)).summaries == []
    top = summary_object((await world.conversations.list_of(ADA, limit=1)).summaries[0])
    assert (top["sequence"], top["message_count"], top["role"]) == (2, 1, "admin")
    assert top["updated_at"] == top["last_activity_at"] == "2026-01-09T23:06:46.000Z"


async def test_a_conversation_is_shown_to_its_members_only(world: World) -> None:
    direct = await world.direct(ADA, BOB)
    summary = await world.conversations.get(BOB, direct)
    assert summary.peer is not None
    assert summary.peer.username == "ada"
    with pytest.raises(Forbidden):
        await world.conversations.get(CYD, direct)
    with pytest.raises(NotFound):
        await world.conversations.get(ADA, NOWHERE)


@pytest.mark.parametrize("text", ["x", "====", "é", "MTIz", "LTU6YQ", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk6eA", "A" * 128, "\ud800"])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_cursor(text)
    assert refused.value.details["field"] == "cursor"
