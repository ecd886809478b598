"""Who may come, go and rule, and from where newcomers may read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from tests.features.conversations.kit import ADA, BOB, CYD, DAN, EVE, NOBODY, NOWHERE, World

from secureconnect.errors import BadRequest, Forbidden, NotFound, SecureConnectError
from secureconnect.features.access.model import SEES_NOTHING
from secureconnect.features.auth.model import User
from secureconnect.features.conversations import members as rules
from secureconnect.features.conversations.model import SettingsChange
from secureconnect.features.conversations.service import NewConversation
from secureconnect.features.conversations.store import GroupFull, LastAdmin
from secureconnect.ids import ConversationId, UserId

FROM_JOIN = SettingsChange(is_e2ee_enabled=False, history_visibility="from_join")


async def refused(attempt: Awaitable[object], error: type[SecureConnectError]) -> dict[str, object]:
    with pytest.raises(error) as refusal:
        await attempt
    return refusal.value.details


async def roles(world: World, conversation: ConversationId, as_seen_by: UserId = ADA) -> dict[UserId, str]:
    return {m.profile.user: m.role for m in await world.conversations.members.list_of(as_seen_by, conversation)}


async def test_an_admin_adds_people_and_everybody_learns_of_it(world: World) -> None:
    group = await world.group(ADA, BOB)
    assert await world.conversations.members.add(ADA, group, [CYD], ["dan"]) == [CYD, DAN]
    assert await roles(world, group, CYD) == {ADA: "admin", BOB: "member", CYD: "member", DAN: "member"}
    (_, one), (kind, other) = (await world.entries(group))[1:]
    assert (one["username"], kind, other["user_id"], other["actor_id"]) == ("cyd", "member.joined", DAN, ADA)
    assert world.words() == [
        ("signal", "added", "cyd"),
        ("signal", "added", "dan"),
        ("event", "conversation.added", "cyd"),
        ("event", "conversation.added", "dan"),
    ]
    assert all(told.tail == 3 for told in world.told), "who is told may read"


async def test_adding_a_member_again_changes_nothing(world: World) -> None:
    group = await world.group(ADA, BOB)
    assert await world.conversations.members.add(ADA, group, [BOB, CYD, CYD]) == [CYD]
    assert await world.conversations.members.add(ADA, group, [BOB, ADA]) == []
    assert [kind for kind, _ in await world.entries(group)] == ["conversation.created", "member.joined"]


async def test_members_add_only_where_the_group_lets_them_invite(world: World) -> None:
    group = await world.group(ADA, BOB)
    await refused(world.conversations.members.add(BOB, group, [CYD]), Forbidden)
    await world.conversations.set_rules(ADA, group, SettingsChange(members_may_invite=True))
    assert await world.conversations.members.add(BOB, group, [CYD]) == [CYD]
    await refused(world.conversations.members.add(DAN, group, [DAN]), Forbidden)


async def test_whom_to_add_must_be_named_and_exist(world: World) -> None:
    group = await world.group(ADA, BOB)
    assert (await refused(world.conversations.members.add(ADA, group, []), BadRequest))["field"] == "user_ids"
    assert (await refused(world.conversations.members.add(ADA, group, ["me"]), BadRequest))["field"] == "user_ids"
    assert (await refused(world.conversations.members.add(ADA, group, [CYD, NOBODY]), NotFound))["field"] == "user_ids"
    assert (await refused(world.conversations.members.add(ADA, group, [], ["zoe"]), NotFound))["field"] == "usernames"
    assert (await refused(world.conversations.members.add(ADA, NOWHERE, [CYD]), NotFound))["field"] == "conversation_id"
    assert len(await world.entries(group)) == 1


async def test_a_full_group_takes_nobody_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MEMBERS_MAX", 3)
    group = await world.group(ADA, BOB)
    await refused(world.conversations.members.add(ADA, group, [CYD, DAN]), GroupFull)
    assert await world.conversations.members.add(ADA, group, [CYD, BOB]) == [CYD]
    await refused(world.conversations.members.add(ADA, group, [DAN]), GroupFull)


async def test_who_joins_later_reads_from_the_own_join_on(world: World) -> None:
    group = await world.group(ADA, BOB, settings=FROM_JOIN)
    await world.say(ADA, group)
    await world.conversations.members.add(ADA, group, [CYD, DAN])
    assert (await world.visible_from(CYD, group), await world.visible_from(DAN, group)) == (3, 4)
    await world.conversations.members.leave(CYD, group)
    await world.conversations.members.add(ADA, group, [CYD])
    assert await world.visible_from(CYD, group) == 6
    assert await world.visible_from(BOB, group) == 1


async def test_open_history_is_open_to_newcomers(world: World) -> None:
    group = await world.group(ADA, BOB)
    await world.say(ADA, group)
    await world.conversations.members.add(ADA, group, [CYD])
    assert await world.visible_from(CYD, group) == 1


async def test_a_newcomer_sees_nothing_until_the_join_has_its_number(world: World) -> None:
    group = await world.group(ADA, BOB, settings=FROM_JOIN)
    world.log.is_away = True
    assert await world.conversations.members.add(ADA, group, [CYD]) == [CYD]
    assert world.words() == [("event", "conversation.added", "cyd")], "sockets hear of it when there is something to read"
    assert await world.visible_from(CYD, group) == SEES_NOTHING
    page = await world.messages.history(CYD, group, limit=10)
    assert page.messages == ()
    part = await world.messages.entries(CYD, group, after=0, limit=10)
    assert (part.entries, part.first, part.head) == ((), 2, 1)
    world.log.is_away = False
    world.told.clear()
    await world.conversations.members.add(ADA, group, [DAN])  # tells what was left, too
    assert await world.visible_from(CYD, group) == 2
    assert world.words()[:2] == [("signal", "added", "cyd"), ("signal", "added", "dan")]


async def test_an_admin_removes_others_and_the_removed_one_is_told_first(world: World) -> None:
    group = await world.group(ADA, BOB, CYD)
    await world.conversations.members.remove(ADA, group, BOB)
    assert await roles(world, group) == {ADA: "admin", CYD: "member"}
    kind, body = (await world.entries(group))[-1]
    assert (kind, body["user_id"], body["username"], body["reason"]) == ("member.left", BOB, "bob", "removed")
    once, again = ("signal", "removed", "bob"), ("signal", "removed", "bob")
    assert world.words() == [once, ("event", "conversation.removed", "bob"), again]
    assert [told.tail for told in world.told] == [1, 1, 2], "before anything is waited for, and when the log says it"
    assert [told.body["reason"] for told in world.told] == ["removed"] * 3
    await refused(world.access.member(group, BOB), Forbidden)


async def test_who_leaves_is_told_that_she_left(world: World) -> None:
    group = await world.group(ADA, BOB, CYD)
    await world.conversations.members.leave(BOB, group)
    assert [told.body["reason"] for told in world.told] == ["left"] * 3, "her sockets, her own channel, and again from the log"


async def test_members_remove_nobody_but_themselves(world: World) -> None:
    group = await world.group(ADA, BOB, CYD)
    await refused(world.conversations.members.remove(BOB, group, CYD), Forbidden)
    await refused(world.conversations.members.remove(DAN, group, DAN), Forbidden)
    await refused(world.conversations.members.remove(ADA, NOWHERE, BOB), NotFound)
    assert (await refused(world.conversations.members.remove(ADA, group, DAN), NotFound))["field"] == "user_id"
    await world.conversations.members.remove(BOB, group, BOB)
    assert (await world.entries(group))[-1][1]["reason"] == "left"


async def test_when_the_last_admin_leaves_the_longest_member_rules(world: World) -> None:
    group = await world.group(ADA, BOB, CYD)
    await world.conversations.members.leave(ADA, group)
    assert await roles(world, group, CYD) == {BOB: "admin", CYD: "member"}
    kinds = [(kind, body["user_id"], body.get("role")) for kind, body in (await world.entries(group))[1:]]
    assert kinds == [("member.left", ADA, None), ("member.role_changed", BOB, "admin")]
    assert ("signal", "changed", "bob") in world.words()
    await world.conversations.members.remove(BOB, group, CYD)


async def test_while_another_admin_remains_nobody_is_promoted(world: World) -> None:
    group = await world.group(ADA, BOB, CYD)
    await world.conversations.members.set_role(ADA, group, CYD, "admin")
    await world.conversations.members.leave(ADA, group)
    assert await roles(world, group, BOB) == {BOB: "member", CYD: "admin"}


async def test_when_the_last_member_leaves_the_log_stays(world: World) -> None:
    group = await world.group(ADA, BOB)
    await world.conversations.members.leave(BOB, group)
    await world.conversations.members.leave(ADA, group)
    assert [kind for kind, _ in await world.entries(group)] == ["conversation.created", "member.left", "member.left"]
    await refused(world.access.member(group, ADA), Forbidden)


async def test_all_admins_leaving_at_once_leave_a_ruler(world: World) -> None:
    group = await world.group(ADA, BOB, CYD)
    await world.conversations.members.set_role(ADA, group, BOB, "admin")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.conversations.members.leave, ADA, group)
        nursery.start_soon(world.conversations.members.leave, BOB, group)
    assert await roles(world, group, CYD) == {CYD: "admin"}


async def test_a_direct_conversation_keeps_its_two(world: World) -> None:
    direct = await world.direct(ADA, BOB)
    for attempt in (
        world.conversations.members.add(ADA, direct, [CYD]),
        world.conversations.members.remove(ADA, direct, BOB),
        world.conversations.members.leave(BOB, direct),
        world.conversations.members.set_role(ADA, direct, BOB, "admin"),
    ):
        assert (await refused(attempt, BadRequest))["reason"] == "DIRECT_CONVERSATION"
    assert len(await world.entries(direct)) == 1


async def test_roles_change_at_once_and_one_admin_remains(world: World) -> None:
    group = await world.group(ADA, BOB)
    await refused(world.conversations.members.set_role(BOB, group, BOB, "admin"), Forbidden)
    await refused(world.conversations.members.set_role(ADA, group, ADA, "member"), LastAdmin)
    assert (await refused(world.conversations.members.set_role(ADA, group, EVE, "admin"), NotFound))["field"] == "user_id"
    await world.conversations.members.set_role(ADA, group, BOB, "admin")
    await world.conversations.members.set_role(ADA, group, BOB, "admin")
    await world.conversations.members.set_role(BOB, group, ADA, "member")
    assert await roles(world, group) == {ADA: "member", BOB: "admin"}
    kinds = [(kind, body["username"], body["role"]) for kind, body in (await world.entries(group))[1:]]
    assert kinds == [("member.role_changed", "bob", "admin"), ("member.role_changed", "ada", "member")]
    await refused(world.conversations.members.remove(ADA, group, BOB), Forbidden)


Deed = Callable[[World, ConversationId], Awaitable[object]]
INTERRUPTED: dict[str, tuple[Deed, list[tuple[str, str, str]]]] = {
    "leave": (lambda world, group: world.conversations.members.remove(ADA, group, BOB), [("signal", "removed", "bob")]),
    "join": (
        lambda world, group: world.conversations.members.add(ADA, group, [CYD, DAN]),
        [("signal", "added", "cyd"), ("signal", "added", "dan")],
    ),
    "set_role": (
        lambda world, group: world.conversations.members.set_role(ADA, group, BOB, "admin"),
        [("signal", "changed", "bob")],
    ),
    "change": (
        lambda world, group: world.conversations.set_rules(ADA, group, SettingsChange(is_e2ee_enabled=True)),
        [("signal", "changed", "ada")],
    ),
    "create": (
        lambda world, _: world.conversations.create(ADA, NewConversation("group", [EVE])),
        [("signal", "added", "ada"), ("signal", "added", "eve")],
    ),
}


@pytest.mark.parametrize("method", INTERRUPTED)
async def test_a_request_that_is_cancelled_as_its_change_commits_still_reaches_every_socket(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The client is gone, or its 30 s are over, between commit and signal: the announcement, committed too, is what tells."""
    group = await world.group(ADA, BOB)
    assert (await world.access.member(group, BOB))[1].role == "member", "the answer is cached"
    deed, signals = INTERRUPTED[method]
    store = getattr(world.store, method)
    with trio.CancelScope() as request:

        async def commit_and_be_cancelled(*args: object, **values: object) -> None:
            await store(*args, **values)
            request.cancel()
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(world.store, method, commit_and_be_cancelled)
        await deed(world, group)
    assert request.cancelled_caught
    assert world.told == []
    assert await world.announcer.sweep()
    assert world.words() == signals
    if method == "leave":
        await refused(world.access.member(group, BOB), Forbidden)


async def test_an_account_that_is_gone_cannot_be_added(world: World) -> None:
    group = await world.group(ADA, BOB)
    ghost = UserId("00000000-0000-4000-8000-0000000000aa")
    await world.accounts.add(User(ghost, "g@x.org", "ghost", "Ghost", 0, 0, status="deleted"), "hash")
    await refused(world.conversations.members.add(ADA, group, [ghost]), NotFound)
