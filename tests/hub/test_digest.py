"""Tables of what a node says, and of what it concludes from what it hears and does not hear."""

from __future__ import annotations

import pytest

import secureconnect.hub.digest as digest_module
from secureconnect.hub.digest import FORGET_S, LATE_S, REPEATS, SILENT_S, SWEEP_PAUSE_S, Author, Digest, Reader, batches


def reader_of(*numbers: int, now: float = 0.0) -> Reader:
    """A node that has heard these digests of node `a`, and its own."""
    reader = Reader("me")
    reader.begin(0.0)
    for number in numbers:
        reader.hear(Digest("a", 1, number), now, by_bus=True)
    reader.hear(Digest("me", 1, 1), now, by_bus=True)
    return reader


def sweeps(reader: Reader, now: float) -> bool:
    began = reader.sweep_begins()
    if began:
        reader.sweep_ended(now, complete=True)
    return began


def test_a_head_is_in_the_next_five_digests_however_late_they_are_made() -> None:
    author = Author("a", 1)
    author.note("c", 4)
    author.note("c", 3)
    assert [author.make().heads for _ in range(REPEATS + 1)] == [(("c", 4),)] * REPEATS + [()]


def test_a_head_that_grows_is_named_five_times_more() -> None:
    author = Author("a", 1)
    author.note("c", 4)
    author.make()
    author.note("c", 5)
    assert [author.make().heads for _ in range(REPEATS + 1)] == [(("c", 5),)] * REPEATS + [()]


def test_a_signal_rides_in_five_digests() -> None:
    author = Author("a", 1)
    author.tell(7, "session.ended", b"x")
    assert [author.make().signals for _ in range(REPEATS + 1)] == [((7, "session.ended", b"x"),)] * REPEATS + [()]


def test_what_one_digest_cannot_hold_makes_it_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_module, "HEADS_MAX", 2)
    author = Author("a", 1)
    for name in "xyz":
        author.note(name, 1)
    digest = author.make()
    assert digest.full
    assert digest.heads == (("y", 1), ("z", 1)), "the newest are named"


def test_what_waits_to_be_said_is_bounded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_module, "HEADS_KEPT_MAX", 2)
    monkeypatch.setattr(digest_module, "SIGNALS_MAX", 2)
    author = Author("a", 1)
    for number, name in enumerate("xyz"):
        author.note(name, 1)
        author.tell(number, name, b"")
    digest = author.make()
    assert digest.full
    assert len(digest.heads) == len(digest.signals) == 2
    assert not author.make().full


@pytest.mark.parametrize(("number", "needs_table"), [(2, False), (1 + REPEATS, False), (2 + REPEATS, True)])
def test_only_a_gap_longer_than_the_repeats_needs_the_table(number: int, needs_table: bool) -> None:
    reader = reader_of(1, number)
    assert reader.wants_table(0.0) is needs_table
    reader.table_read([Digest("a", 1, n) for n in range(2, number + 1)], 0.0)
    assert not reader.wants_table(0.0)
    assert reader.since() == {"a": (1, number)}
    assert not reader.sweep_begins()


@pytest.mark.parametrize("table", ["has too few rows", "is away", "is absent"])
def test_a_gap_that_the_table_does_not_fill_is_swept_once(table: str) -> None:
    reader = reader_of(1, 3 + REPEATS)
    if table == "has too few rows":
        reader.table_read([], 0.0)
    elif table == "is away":
        reader.table_unreadable(0.0)
    else:
        reader.table_absent(0.0)
    assert sweeps(reader, 0.0)
    assert not reader.wants_table(0.0)
    assert not sweeps(reader, 0.0)


def test_rows_with_a_gap_of_their_own_are_swept_for() -> None:
    reader = reader_of(1)
    reader.table_read([Digest("a", 1, 3 + REPEATS)], 0.0)
    assert sweeps(reader, 0.0)


def test_heads_come_from_bus_and_table_and_the_own_are_only_an_echo() -> None:
    reader = reader_of(1)
    assert reader.hear(Digest("a", 1, 2, (("c", 4),)), 1.0, by_bus=True) == (("c", 4),)
    assert reader.table_read([Digest("a", 1, 3, (("d", 9),))], 1.0) == [("d", 9)]
    assert reader.hear(Digest("me", 1, 5, (("c", 99),)), 1.0, by_bus=True) == ()
    assert reader.since() == {"a": (1, 3)}


def test_a_node_that_does_not_hear_itself_reads_the_table() -> None:
    reader = reader_of(1)
    for second in range(1, 6):
        reader.hear(Digest("a", 1, 1 + second), float(second), by_bus=True)
    assert not reader.is_deaf(SILENT_S)
    assert reader.is_deaf(SILENT_S + 0.1)
    assert reader.wants_table(SILENT_S + 0.1)
    reader.hear(Digest("me", 1, 9), 5.0, by_bus=False)
    assert reader.is_deaf(5.0), "a row is no echo"
    reader.alone(5.0)
    assert not reader.is_deaf(5.0)


@pytest.mark.parametrize("digest", [Digest("a", 2, 1), Digest("a", 1, 2, full=True), Digest("b", 1, 2 + REPEATS)])
def test_a_new_epoch_a_full_digest_and_a_node_met_late_are_swept_for(digest: Digest) -> None:
    reader = reader_of(1)
    reader.hear(digest, 1.0, by_bus=True)
    assert sweeps(reader, 1.0)
    assert not sweeps(reader, 1.0)


def test_a_node_met_with_its_first_digests_needs_no_sweep() -> None:
    reader = reader_of(1)
    reader.hear(Digest("b", 1, REPEATS), 1.0, by_bus=True)
    assert not reader.sweep_begins()


def test_the_dead_are_swept_for_once_more_later() -> None:
    reader = reader_of(1)
    reader.hear(Digest("a", 2, 1), 1.0, by_bus=True)
    assert sweeps(reader, 1.0)
    reader.tick(LATE_S - 0.1)
    assert not sweeps(reader, LATE_S - 0.1)
    reader.tick(LATE_S)
    assert sweeps(reader, LATE_S), "for our own former life"
    reader.tick(1.0 + LATE_S)
    assert sweeps(reader, 1.0 + LATE_S)


def test_silence_on_bus_and_table_is_swept_for_within_a_budget_and_then_forgotten() -> None:
    reader, now = reader_of(1), SILENT_S + 0.1
    reader.hear(Digest("me", 1, 2), now, by_bus=True)
    assert reader.wants_table(now)
    assert not reader.is_deaf(now)
    reader.table_read([], now)
    assert sweeps(reader, now)
    reader.table_read([], now + SWEEP_PAUSE_S / 2)
    assert not sweeps(reader, now), "budgeted"
    reader.table_read([], now + SWEEP_PAUSE_S + 0.1)
    assert sweeps(reader, now + SWEEP_PAUSE_S + 0.1)
    reader.table_read([], FORGET_S + 0.1)
    assert reader.others == {}


def test_a_peer_silent_on_the_bus_but_not_in_the_table_is_not_swept_for() -> None:
    reader, now = reader_of(1), SILENT_S + 0.1
    reader.hear(Digest("me", 1, 2), now, by_bus=True)
    reader.table_read([Digest("a", 1, 2)], now)
    assert not reader.sweep_begins()


@pytest.mark.parametrize("absent", [True, False])
def test_without_a_table_deafness_is_swept_for(absent: bool) -> None:
    reader, now = reader_of(), SILENT_S + 0.1
    reader.table_absent(now) if absent else reader.table_unreadable(now)
    assert sweeps(reader, now)


def test_a_sweep_answers_only_what_was_asked_before_it_began_and_a_partial_one_is_repeated() -> None:
    reader = reader_of(1)
    reader.hear(Digest("a", 1, 2, full=True), 1.0, by_bus=True)
    assert reader.sweep_begins()
    reader.hear(Digest("a", 1, 3, full=True), 1.1, by_bus=True)
    assert not reader.sweep_begins(), "one at a time"
    reader.sweep_ended(1.2, complete=True)
    assert reader.sweep_begins(), "asked for during the first"
    reader.sweep_ended(1.3, complete=False)
    assert reader.sweep_begins(), "the second was not complete"


def test_an_older_life_of_a_peer_changes_nothing() -> None:
    reader = reader_of(1)
    reader.hear(Digest("a", 2, 1), 1.0, by_bus=True)
    reader.hear(Digest("a", 1, 99), 1.1, by_bus=True)
    assert reader.since() == {"a": (2, 1)}


def test_a_sweep_goes_in_batches() -> None:
    assert list(batches("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
