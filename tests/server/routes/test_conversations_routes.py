"""`/v1/conversations` as clients see it: names, types and codes, through dispatch."""

from __future__ import annotations

import pytest
from tests.features.conversations.kit import ADA, BOB, CYD, DAN, NOBODY, NOWHERE, open_world
from tests.server.routes.kit import Face

SETTINGS = {
    "is_e2ee_enabled": False,
    "ai_enabled": False,
    "recording_enabled": False,
    "message_retention_days": 30,
    "members_may_invite": False,
    "history_visibility": "all",
}


@pytest.fixture
async def face() -> Face:
    return Face(await open_world())


async def test_a_group_as_its_creator_sees_it(face: Face) -> None:
    made = await face.call(
        "conversations.create", expect=201, type="group", name="Lunch", participant_ids=[ADA, BOB], is_e2ee_enabled=False
    )
    key = made["conversation_id"]
    assert made == {
        "conversation_id": key,
        "type": "group",
        "title": "Lunch",
        "name": "Lunch",
        "created_by": ADA,
        "created_at": "2026-01-09T23:06:40.000Z",
        "updated_at": "2026-01-09T23:06:40.000Z",
        "last_activity_at": "2026-01-09T23:06:40.000Z",
        **SETTINGS,
        "settings": SETTINGS,
        "role": "admin",
        "participants_count": 2,
        "sequence": 1,
        "message_count": 0,
    }
    assert await face.call("conversations.get", conversation_id=key) == made
    assert await face.call("conversations.get", conversation_id=key.upper()) == made


async def test_old_clients_create_without_saying_more(face: Face) -> None:
    made = await face.call("conversations.create", expect=201, type="direct", participant_ids=[ADA, BOB], title="x")
    assert made["is_e2ee_enabled"] is True
    assert made["peer"]["username"] == "bob"
    again = await face.call("conversations.create", BOB, expect=200, type="direct", participant_usernames=["ada"])
    assert again["conversation_id"] == made["conversation_id"]


@pytest.mark.parametrize(
    ("values", "status", "code", "field"),
    [
        ({}, 400, "VALIDATION_ERROR", "type"),
        ({"type": "channel"}, 400, "VALIDATION_ERROR", "type"),
        ({"type": "group", "participant_ids": "bob"}, 400, "VALIDATION_ERROR", "participant_ids"),
        ({"type": "group", "participant_ids": ["bob"]}, 400, "VALIDATION_ERROR", "participant_ids"),
        ({"type": "group", "participant_ids": [NOBODY]}, 404, "NOT_FOUND", "participant_ids"),
        ({"type": "direct", "participant_usernames": ["zoe"]}, 404, "NOT_FOUND", "participant_usernames"),
        ({"type": "group", "title": 5}, 400, "VALIDATION_ERROR", "title"),
        (
            {"type": "group", "participant_ids": [BOB], "message_retention_days": 0},
            400,
            "VALIDATION_ERROR",
            "message_retention_days",
        ),
        ({"type": "group", "participant_ids": [BOB], "history_visibility": "x"}, 400, "VALIDATION_ERROR", "history_visibility"),
        ({"type": "group", "participant_ids": [BOB], "ai_enabled": True}, 403, "E2EE_BLOCKED", None),
    ],
)
async def test_a_wrong_creation_names_the_field(
    face: Face, values: dict[str, object], status: int, code: str, field: str | None
) -> None:
    answered, word, details = await face.refusal("conversations.create", **values)
    assert (answered, word, details.get("field")) == (status, code, field)


async def test_the_list_pages_by_cursor_and_by_offset(face: Face) -> None:
    for name in ("one", "two", "three"):
        face.world.clock.advance(1)
        await face.call("conversations.create", expect=201, type="group", title=name, participant_ids=[BOB])
    first = await face.call("conversations.list", limit="2")
    assert [c["title"] for c in first["conversations"]] == ["three", "two"]
    assert (first["limit"], first["offset"], first["has_more"]) == (2, 0, True)
    second = await face.call("conversations.list", limit=2, cursor=first["next_cursor"])
    assert [c["title"] for c in second["conversations"]] == ["one"]
    assert (second["has_more"], second["next_cursor"]) == (False, None)
    assert (await face.call("conversations.list", offset="2"))["conversations"] == second["conversations"]
    assert (await face.call("conversations.list", limit=10**9))["limit"] == 100
    assert (await face.call("conversations.list", DAN))["conversations"] == []


@pytest.mark.parametrize("limit", [0, -1, "NaN", "", "1.5", True, None])
async def test_a_limit_that_is_no_number_from_one_is_refused(face: Face, limit: object) -> None:
    assert (await face.refusal("conversations.list", limit=limit))[2]["field"] == "limit"


@pytest.mark.parametrize("values", [{"offset": -1}, {"offset": 2**63}, {"cursor": "x"}, {"cursor": "x" * 1000}])
async def test_a_place_that_is_none_is_refused(face: Face, values: dict[str, object]) -> None:
    assert (await face.refusal("conversations.list", **values))[2]["field"] == next(iter(values))


async def test_settings_of_which_one_is_named_leave_the_others(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    changed = await face.call("conversations.settings", conversation_id=group, recording_enabled=True)
    assert changed["settings"] == SETTINGS | {"recording_enabled": True}
    assert changed["message"]
    assert (await face.refusal("conversations.settings", conversation_id=group, colour="red"))[0] == 400
    assert (await face.refusal("conversations.settings", BOB, conversation_id=group, ai_enabled=True))[0] == 403
    days = await face.refusal("conversations.settings", conversation_id=group, message_retention_days=3651)
    assert days[2]["field"] == "message_retention_days"
    encrypted = await face.call("conversations.settings", conversation_id=group, is_e2ee_enabled=True)
    assert (encrypted["is_e2ee_enabled"], encrypted["recording_enabled"]) == (True, True)
    blocked = await face.refusal("conversations.settings", conversation_id=group, ai_enabled=True)
    assert blocked[:2] == (403, "E2EE_BLOCKED")


async def test_renaming_takes_both_names_and_null_takes_away(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    changed = await face.call("conversations.update", conversation_id=group, name="Dinner", avatar_url="https://x.org/a")
    assert (changed["title"], changed["avatar_url"], bool(changed["message"])) == ("Dinner", "https://x.org/a", True)
    changed = await face.call("conversations.update", conversation_id=group, avatar_url=None)
    assert (changed["title"], "avatar_url" in changed) == ("Dinner", False)
    changed = await face.call("conversations.update", conversation_id=group, title=None)
    assert changed["title"] is None
    assert (await face.refusal("conversations.update", conversation_id=group))[0] == 400
    assert (await face.refusal("conversations.update", conversation_id=group, title="x" * 201))[2]["field"] == "title"


async def test_participants_are_shown_without_addresses(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    shown = await face.call("conversations.participants", BOB, conversation_id=group)
    assert shown["participants"][0] == {
        "conversation_id": group,
        "user_id": ADA,
        "role": "admin",
        "joined_at": "2026-01-09T23:06:40.000Z",
        "username": "ada",
        "display_name": "Ada",
        "status": "offline",
    }


async def test_people_come_and_go(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    added = await face.call("conversations.add_participants", conversation_id=group, user_ids=[CYD, BOB], usernames=["dan"])
    assert added["added"] == [CYD, DAN]
    assert (await face.call("conversations.add_participants", conversation_id=group, user_ids=[CYD]))["added"] == []
    await face.call("conversations.set_role", conversation_id=group, user_id=CYD.upper(), role="admin")
    assert (await face.refusal("conversations.set_role", conversation_id=group, user_id=CYD, role="owner"))[2]["field"] == "role"
    await face.call("conversations.remove_participant", CYD, conversation_id=group, user_id=ADA)
    await face.call("conversations.leave", BOB, conversation_id=group)
    shown = await face.call("conversations.participants", CYD, conversation_id=group)
    assert [p["user_id"] for p in shown["participants"]] == [CYD, DAN]
    assert (await face.refusal("conversations.leave", BOB, conversation_id=group))[0] == 403
    assert (await face.refusal("conversations.set_role", CYD, conversation_id=group, user_id=CYD, role="member"))[0] == 409


async def test_a_deleted_group_is_gone_for_all(face: Face) -> None:
    group = await face.world.group(ADA, BOB)
    assert (await face.refusal("conversations.delete", BOB, conversation_id=group))[:2] == (403, "FORBIDDEN")
    assert (await face.call("conversations.delete", conversation_id=group))["message"]
    for name in ("get", "log", "delete"):
        assert (await face.refusal(f"conversations.{name}", conversation_id=group))[:2] == (404, "NOT_FOUND")
    direct = await face.world.direct(ADA, BOB)
    status, _, details = await face.refusal("conversations.delete", conversation_id=direct)
    assert (status, details["reason"]) == (400, "DIRECT_CONVERSATION")


@pytest.mark.parametrize("name", ["get", "update", "delete", "settings", "participants", "add_participants", "leave", "log"])
async def test_an_unknown_conversation_is_404_and_a_malformed_id_400(face: Face, name: str) -> None:
    values = {"title": "x", "ai_enabled": False, "user_ids": [BOB]}
    assert (await face.refusal(f"conversations.{name}", conversation_id=NOWHERE, **values))[:2] == (404, "NOT_FOUND")
    for wrong in ("nonsense", NOWHERE + "\n", "", 5):
        status, _, details = await face.refusal(f"conversations.{name}", conversation_id=wrong, **values)
        assert (status, details["field"]) == (400, "conversation_id")


async def test_nobody_gets_anywhere_without_a_token(face: Face) -> None:
    for name in face.rows:
        assert (await face.refusal(name, None))[:2] == (401, "UNAUTHORIZED")
