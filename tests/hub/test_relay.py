"""The pure parts of the bus side: what waits to be said, and which topics a link listens to."""

from __future__ import annotations

import pytest

import secureconnect.hub.relay as relay_module
from secureconnect.hub.channel import Channel, Load
from secureconnect.hub.history import History
from secureconnect.hub.relay import Outgoing, Tuning
from secureconnect.hub.wire import NODES_TOPIC, Event


def event(n: int) -> Event:
    return Event("x", b"%d" % n)


def outgoing_of(count_max: int = 100, bytes_max: int = 1000) -> Outgoing:
    return Outgoing(count_max=count_max, bytes_max=bytes_max)


def channel(name: str = "user:1") -> Channel:
    return Channel(name, Load(100), queue_max=9, source=None, history=History("e", events_max=9, keep_s=9.0))


def test_what_waits_for_one_topic_leaves_together_and_topics_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "JOINED_MAX", 2)
    outgoing = outgoing_of()
    for n in range(3):
        outgoing.put("a", event(n))
    outgoing.put("b", event(3))
    assert outgoing.take() == ("a", [event(0), event(1)])
    assert outgoing.take() == ("b", [event(3)])
    assert outgoing.take() == ("a", [event(2)])
    assert outgoing.take() is None
    assert outgoing.waiting == 0


def test_what_the_nodes_must_hear_goes_first() -> None:
    outgoing = outgoing_of()
    outgoing.put("a", event(1))
    outgoing.put(NODES_TOPIC, event(2))
    assert outgoing.take() == (NODES_TOPIC, [event(2)])


@pytest.mark.parametrize(("count_max", "bytes_max"), [(3, 1000), (100, 30)], ids=["count", "bytes"])
def test_too_much_waiting_loses_the_oldest(count_max: int, bytes_max: int) -> None:
    outgoing = outgoing_of(count_max, bytes_max)
    for n in range(5):
        outgoing.put("a", event(n), size=10)
    assert (outgoing.waiting, outgoing.bytes, outgoing.lost) == (3, 30, 2)
    assert outgoing.take() == ("a", [event(2), event(3), event(4)])
    assert outgoing.bytes == 0


def test_one_body_over_the_bound_still_leaves() -> None:
    outgoing = outgoing_of(bytes_max=5)
    outgoing.put("a", event(1), size=10)
    assert outgoing.lost == 0


def test_a_link_listens_to_what_is_wanted_and_no_longer_to_what_is_not() -> None:
    tuning, one = Tuning(), channel()
    assert tuning.to_listen() == [NODES_TOPIC]
    assert not tuning.want("c", one)
    assert tuning.to_listen() == [NODES_TOPIC, "c"]
    assert tuning.listened([NODES_TOPIC, "c"]) == [one]
    assert tuning.is_done
    tuning.unwant("c")
    assert not tuning.is_done
    assert tuning.to_unlisten() == ["c"]
    assert tuning.is_done


def test_what_is_wanted_again_before_it_was_given_up_is_heard_at_once() -> None:
    tuning, old, new = Tuning(), channel(), channel()
    tuning.want("c", old)
    tuning.listened([NODES_TOPIC, "c"])
    tuning.unwant("c")
    assert tuning.want("c", new)
    assert tuning.is_done
    tuning.unwant("c")
    tuning.to_unlisten()
    assert not tuning.want("c", new), "it is being given up: it must be listened to anew"


def test_what_is_no_longer_wanted_when_it_is_confirmed_is_given_up() -> None:
    tuning = Tuning()
    tuning.want("c", channel())
    tuning.unwant("c")
    assert tuning.listened([NODES_TOPIC, "c"]) == []
    assert tuning.to_unlisten() == ["c"]


def test_a_confirmation_goes_to_the_channel_that_is_open_now() -> None:
    tuning, old, new = Tuning(), channel(), channel()
    tuning.want("c", old)
    tuning.unwant("c")
    tuning.want("c", new)
    assert tuning.listened(["c"]) == [new]


def test_a_new_link_hears_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "LISTEN_BATCH", 2)
    tuning = Tuning()
    tuning.want("c", channel())
    tuning.want("d", channel())
    tuning.listened([NODES_TOPIC, "c", "d"])
    tuning.start_over()
    assert tuning.to_listen() == [NODES_TOPIC, "c"]
    tuning.listened([NODES_TOPIC, "c"])
    assert tuning.to_listen() == ["d"]
