"""The client comes through what happens to lines, servers and programs: nothing is lost or shown twice, on both loops."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio
import pytest
from tests.client.world import MakeWorld, Program

from secureconnect.client import Event, ServerRefused, connect
from secureconnect.client.inbox import Inbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.service,
    # httpx leaves the iterator of a request's body behind when the connection is refused or the call is cancelled.
    pytest.mark.filterwarnings("ignore:.*ByteStream.__aiter__:pytest.PytestUnraisableExceptionWarning"),
]
PATIENCE_S = 40
POLLS_MAX = 30
"""Of a client that waits 25 s per poll and is disturbed once; a hot loop makes hundreds each second."""


def in_channel(conversation: str, name: str) -> Callable[[Event], bool]:
    return lambda event: event.name == name and event.channel == f"conversation:{conversation}"


async def test_a_conversation_joined_while_live_is_resumed_like_any_other(make_world: MakeWorld) -> None:
    world = make_world()
    with anyio.fail_after(PATIENCE_S):
        async with connect(world.line.url, token=world.ada) as ada:
            program = Program(ada)
            await ada.wait_state("live")
            conversation = await world.group()
            await program.until(in_channel(conversation, "subscribed"))
            world.line.cut()
            await ada.wait_state("connecting", "offline")
            await world.says(conversation, "away 1", "away 2", "away 3")
            world.line.mend()
            await ada.wait_state("live")
            await world.says(conversation, "afterwards")
            assert await program.until_said(conversation, "afterwards") == ["away 1", "away 2", "away 3", "afterwards"]
    assert program.repeated == []


@pytest.mark.parametrize("takes_sockets", [True, False], ids=["by socket", "by poll"])
async def test_what_was_said_in_a_conversation_joined_while_away_is_not_passed_over(
    make_world: MakeWorld, takes_sockets: bool
) -> None:
    world = make_world()
    world.line.takes_sockets = takes_sockets
    with anyio.fail_after(PATIENCE_S):
        async with connect(world.line.url, token=world.ada) as ada:
            program = Program(ada)
            await ada.wait_state("live", "polling")
            known = await world.group()
            await world.says(known, "before")
            await program.until_said(known, "before")
            world.line.cut()
            await ada.wait_state("connecting", "offline")
            conversation = await world.group()
            await world.says(conversation, "away 1", "away 2")
            world.line.mend()
            await ada.wait_state("live", "polling")
            await world.says(conversation, "afterwards")
            assert await program.until_said(conversation, "afterwards") == ["away 1", "away 2", "afterwards"]
    assert program.repeated == []


async def test_a_polling_client_goes_on_after_the_server_was_restarted(make_world: MakeWorld) -> None:
    """Its position in the channel of the user belongs to a history that is gone: the gap moves it, once."""
    world = make_world()
    world.line.takes_sockets = False
    with anyio.fail_after(PATIENCE_S):
        async with connect(world.line.url, token=world.ada) as ada:
            program = Program(ada)
            await ada.wait_state("polling")
            conversation = await world.group()
            await world.says(conversation, "before")
            await program.until_said(conversation, "before")
            await world.restart()
            await program.until(lambda event: event.name == "gap" and event.channel.startswith("user:"))
            await world.says(conversation, "after 1", "after 2", "after 3")
            assert await program.until_said(conversation, "after 3") == ["before", "after 1", "after 2", "after 3"]
    assert world.line.polls < POLLS_MAX
    assert program.repeated == []


async def test_a_client_whose_sockets_work_again_goes_back_to_one(make_world: MakeWorld) -> None:
    world = make_world()
    conversation = await world.group()
    with anyio.fail_after(PATIENCE_S):
        async with connect(world.line.url, token=world.ada) as ada:
            program = Program(ada)
            await ada.wait_state("live")
            world.line.takes_sockets = False
            world.line.cut()
            world.line.mend()
            await ada.wait_state("polling")
            await world.says(conversation, "by poll")
            await program.until_said(conversation, "by poll")
            world.line.takes_sockets = True
            await ada.wait_state("live")
            await world.says(conversation, "by socket")
            assert await program.until_said(conversation, "by socket") == ["by poll", "by socket"]
    assert program.repeated == []


@pytest.mark.parametrize("takes_sockets", [True, False], ids=["by socket", "by poll"])
async def test_who_missed_more_than_is_replayed_is_told_and_can_read_it(make_world: MakeWorld, takes_sockets: bool) -> None:
    world = make_world(REPLAY_ENTRIES_MAX="20")
    world.line.takes_sockets = takes_sockets
    conversation = await world.group()
    missed = [f"missed {n}" for n in range(30)]
    await world.says(conversation, "first", *missed)
    channel = f"conversation:{conversation}"
    with anyio.fail_after(PATIENCE_S):
        async with connect(world.line.url, token=world.ada, channels=[channel], after={channel: 1}) as ada:
            program = Program(ada)
            gap = await program.until(lambda event: event.name == "gap")
            assert (gap.channel, gap.data["cause"], gap.data["seen"]) == (channel, "not_kept", 1)
            await world.says(conversation, "live")
            assert await program.until_said(conversation, "live") == ["first", *missed, "live"]
    assert program.repeated == []


async def test_who_only_sends_is_answered_and_who_reads_later_reads_it_all(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More events than wait for a reader: answers go on, and what found no room is read from the log."""
    monkeypatch.setattr("secureconnect.client.client.Inbox", partial(Inbox, most=20))
    world = make_world()
    conversation = await world.group()
    texts = [str(n) for n in range(70)]
    with anyio.fail_after(PATIENCE_S):
        async with connect(world.line.url, token=world.ada) as ada:
            for text in texts:
                await ada.send(conversation, text)
            program = Program(ada)
            assert await program.until_said(conversation, texts[-1]) == texts
    assert program.repeated == []
    assert program.gaps == []


async def test_a_bad_send_is_refused_at_once_and_harms_no_other(make_world: MakeWorld) -> None:
    world = make_world()
    conversation = await world.group()
    with anyio.fail_after(PATIENCE_S):
        async with connect(world.line.url, token=world.ada) as ada:
            await ada.wait_state("live")
            for content, metadata, code in (
                ("\ud800", {}, "VALIDATION_ERROR"),
                ("x", {"a": float("nan")}, "VALIDATION_ERROR"),
                ("x" * 1_100_000, {}, "TOO_LARGE"),
            ):
                with pytest.raises(ServerRefused) as caught:
                    await ada.send(conversation, content, metadata=metadata)
                assert caught.value.code == code
            with pytest.raises(ServerRefused):
                await ada.call("messages.send", {"conversation_id": conversation, "content": "\ud800"})
            assert (await ada.send(conversation, "ordinary"))["ack"] == "stored"


async def test_what_the_block_raises_comes_out_as_it_was_raised(make_world: MakeWorld) -> None:
    world = make_world()
    with anyio.fail_after(PATIENCE_S):
        with pytest.raises(ServerRefused):
            async with connect(world.line.url, token=world.ada) as ada:
                await ada.send("00000000-0000-4000-8000-000000000000", "to nobody")
        with pytest.raises(KeyError):
            async with connect(world.line.url, token=world.ada):
                raise KeyError("of the program")
