"""Sending: who may, what may be said, and saying it again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.features.conversations.kit import ADA, BOB, CYD, NOWHERE, World, shown

from secureconnect.errors import BackendDown, BadRequest, Forbidden, NotFound, SecureConnectError, TooLarge
from secureconnect.features.conversations.model import SettingsChange
from secureconnect.features.messages.model import NewMessage
from secureconnect.ids import is_uuid, message_id

ENCRYPTED = SettingsChange(is_e2ee_enabled=True)
DEEP: Any = "x"
for _ in range(5_000):
    DEEP = [DEEP]


async def refused(
    world: World, new: NewMessage, error: type[SecureConnectError], *, encrypted: bool = False
) -> dict[str, object]:
    group = await world.group(ADA, BOB, settings=ENCRYPTED if encrypted else SettingsChange(is_e2ee_enabled=False))
    with pytest.raises(error) as refusal:
        await world.messages.send(ADA, group, new)
    assert len(await world.entries(group)) == 1
    return refusal.value.details


async def test_a_message_speaks_both_dialects(world: World) -> None:
    group = await world.group(ADA, BOB)
    new = NewMessage(content="hi 👋", message_type="image", metadata={"file_size": 5, "tags": ["a"]}, client_message_id="c1")
    sent = await world.messages.send(ADA, group, new)
    assert (sent.ack, sent.duplicate) == ("stored", False)
    assert shown(sent.body) == {
        "sequence": 2,
        "message_number": 1,
        "message_id": message_id(group, ADA, "c1"),
        "conversation_id": group,
        "sender_id": ADA,
        "content": "hi 👋",
        "is_encrypted": False,
        "message_type": "image",
        "content_type": "image",
        "sent_at": "2026-01-09T23:06:40.000Z",
        "created_at": "2026-01-09T23:06:40.000Z",
        "metadata": {"file_size": 5, "tags": ["a"]},
        "client_message_id": "c1",
    }
    assert (await world.entries(group))[-1] == ("message.created", shown(sent.body))


async def test_only_members_send(world: World) -> None:
    group = await world.group(ADA, BOB)
    with pytest.raises(Forbidden):
        await world.messages.send(CYD, group, NewMessage(content="hi"))
    with pytest.raises(NotFound):
        await world.messages.send(ADA, NOWHERE, NewMessage(content="hi"))
    await world.conversations.members.remove(ADA, group, BOB)
    with pytest.raises(Forbidden):
        await world.messages.send(BOB, group, NewMessage(content="hi"))


async def test_the_same_client_message_id_is_the_same_message_whatever_it_says(world: World) -> None:
    group = await world.group(ADA, BOB)
    first = await world.messages.send(ADA, group, NewMessage(content="one", client_message_id="c1"))
    again = await world.messages.send(ADA, group, NewMessage(content="two", client_message_id="c1"))
    assert (again.duplicate, again.body) == (True, first.body)
    other = await world.messages.send(BOB, group, NewMessage(content="two", client_message_id="c1"))
    assert not other.duplicate
    assert len(await world.entries(group)) == 3


async def test_a_retry_is_answered_even_when_it_could_not_be_sent_any_more(world: World) -> None:
    """The first answer was lost, then the group switched to encryption: the client must learn that its message is there."""
    group = await world.group(ADA, BOB)
    first = await world.messages.send(ADA, group, NewMessage(content="one", client_message_id="c1"))
    await world.conversations.set_rules(ADA, group, ENCRYPTED)
    again = await world.messages.send(ADA, group, NewMessage(content="one", client_message_id="c1"))
    assert (again.duplicate, again.body) == (True, first.body)
    with pytest.raises(BadRequest):
        await world.messages.send(ADA, group, NewMessage(content="one", client_message_id="c2"))


async def test_without_a_client_message_id_every_send_is_a_message(world: World) -> None:
    group = await world.group(ADA, BOB)
    one, two = await world.say(ADA, group), await world.say(ADA, group)
    assert one["message_id"] != two["message_id"]
    assert is_uuid(one["message_id"])
    assert "client_message_id" not in one
    assert (one["message_number"], two["message_number"]) == (1, 2)


async def test_plain_text_does_not_enter_an_encrypted_conversation(world: World) -> None:
    details = await refused(world, NewMessage(content="hi"), BadRequest, encrypted=True)
    assert details == {"field": "is_encrypted", "reason": "E2EE_REQUIRED"}
    group = await world.group(ADA, BOB, settings=ENCRYPTED)
    sent = await world.messages.send(ADA, group, NewMessage(content="b64", is_encrypted=True))
    assert shown(sent.body)["is_encrypted"] is True


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (NewMessage(content=""), BadRequest),
        (NewMessage(content="é" * 10_001), TooLarge),
        (NewMessage(content="x" * 65_537, is_encrypted=True), TooLarge),
        (NewMessage(content="é" * 32_769, is_encrypted=True), TooLarge),
    ],
)
async def test_content_has_bounds(world: World, new: NewMessage, error: type[SecureConnectError]) -> None:
    assert (await refused(world, new, error))["field"] == "content"


async def test_content_up_to_the_bounds_is_taken(world: World) -> None:
    group = await world.group(ADA, BOB)
    await world.messages.send(ADA, group, NewMessage(content="👋" * 10_000))
    await world.messages.send(ADA, group, NewMessage(content="x" * 65_536, is_encrypted=True))


@pytest.mark.parametrize(
    "metadata",
    [
        {str(n): n for n in range(51)},
        {"k" * 101: 1},
        {"k": "v" * 1001},
        {"k": list(range(1000))},
        {"k": DEEP},
    ],
    ids=["keys", "key", "text", "json", "depth"],
)
async def test_metadata_has_bounds(world: World, metadata: dict[str, object]) -> None:
    assert (await refused(world, NewMessage(content="hi", metadata=metadata), BadRequest))["field"] == "metadata"


@pytest.mark.parametrize("text", ["", "x" * 129])
async def test_a_client_message_id_has_bounds(world: World, text: str) -> None:
    details = await refused(world, NewMessage(content="hi", client_message_id=text), BadRequest)
    assert details["field"] == "client_message_id"


async def test_a_reply_names_a_message_of_the_same_conversation(world: World) -> None:
    group, other = await world.group(ADA, BOB), await world.group(ADA, BOB)
    here, elsewhere = await world.say(BOB, group), await world.say(BOB, other)
    sent = await world.messages.send(ADA, group, NewMessage(content="yes", reply_to_message_id=here["message_id"].upper()))
    assert shown(sent.body)["reply_to_message_id"] == here["message_id"]
    old = NewMessage(content="yes", metadata={"reply_to_message_id": here["message_id"]})
    assert shown((await world.messages.send(ADA, group, old)).body)["reply_to_message_id"] == here["message_id"]
    for wrong in (elsewhere["message_id"], "nonsense", NOWHERE):
        with pytest.raises(BadRequest) as refusal:
            await world.messages.send(ADA, group, NewMessage(content="yes", reply_to_message_id=wrong))
        assert refusal.value.details["field"] == "reply_to_message_id"


async def test_nobody_replies_to_what_lies_before_the_own_join(world: World) -> None:
    group = await world.group(ADA, BOB, settings=SettingsChange(is_e2ee_enabled=False, history_visibility="from_join"))
    before = await world.say(ADA, group)
    await world.conversations.members.add(ADA, group, [CYD])
    with pytest.raises(BadRequest):
        await world.messages.send(CYD, group, NewMessage(content="?", reply_to_message_id=before["message_id"]))


async def test_a_log_that_is_away_is_said(world: World) -> None:
    group = await world.group(ADA, BOB)
    world.log.is_away = True
    with pytest.raises(BackendDown):
        await world.messages.send(ADA, group, NewMessage(content="hi", client_message_id="c1"))
    world.log.is_away = False
    assert not (await world.messages.send(ADA, group, NewMessage(content="hi", client_message_id="c1"))).duplicate
