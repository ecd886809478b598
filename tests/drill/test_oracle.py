"""Each invariant turns red on a record in which it alone is broken, is green on a good one, and says nothing on an empty one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.drill.records import BEGAN_S, ENDED_S, NODES, OVER_S, ROOM, good

from secureconnect.drill.oracle import (
    BEHAVIOUR,
    CHECKS,
    ISOLATED,
    NO_LOSS,
    Check,
    delays,
    judge,
    percentile,
    verdict,
)
from secureconnect.drill.record import Ack, Entry, Fault, Op, Record, Seen, TokenUse, Told

Doctor = Callable[[Record], object]


def verdicts(record: Record) -> dict[str, bool | None]:
    return {check.name: check.holds for check in judge(record)}


def slower_others(record: Record) -> None:
    record.ops = [replace(op, took_s=0.2) if op.kind == "history" and op.at_s > BEGAN_S + 2 else op for op in record.ops]


def failing_others(record: Record) -> None:
    bad = {
        op for n, op in enumerate(o for o in record.ops if o.kind == "history" and BEGAN_S <= o.at_s < ENDED_S) if n % 100 == 0
    }
    record.ops = [replace(op, status=404) if op in bad else op for op in record.ops]


def full_queue(record: Record) -> None:
    record.health[70] = replace(record.health[70], queues={"outbox": (101, 100)})


def leaked_tasks(record: Record) -> None:
    record.health.append(replace(record.health[-1], at_s=OVER_S, tasks=400))


def other_down(record: Record) -> None:
    record.health[60] = replace(record.health[60], states={"redis": "down", "sql": "down"})


def lost(record: Record) -> None:
    """An acknowledged message is not in the log, whose numbers are dense all the same."""
    record.logs = {ROOM: [replace(one, message="") if one.message == "m200" else one for one in record.logs[ROOM] or ()]}


def stored_twice(record: Record) -> None:
    log = record.logs[ROOM]
    assert log is not None
    log.append(Entry(451, "m7"))
    record.seen += [Seen(one.name, ROOM, 451, OVER_S) for one in record.subscribers]


def forked(record: Record) -> None:
    """The same client id was acknowledged as two messages."""
    record.acks[8] = replace(record.acks[8], key="k7")


def hole(record: Record) -> None:
    """The log has number 451 and no 450, and so everybody got it."""
    log = record.logs[ROOM]
    assert log is not None
    log[-1] = replace(log[-1], sequence=451)
    record.acks[-1] = replace(record.acks[-1], sequence=451)
    record.seen = [replace(one, sequence=451) if one.sequence == 450 else one for one in record.seen]


def moved(record: Record) -> None:
    """It was acknowledged under another number than it has."""
    record.acks[10] = replace(record.acks[10], sequence=12)


def not_delivered(record: Record) -> None:
    record.seen = [one for one in record.seen if (one.subscriber, one.sequence) != ("slow", 210)]


def delivered_twice(record: Record) -> None:
    record.seen.append(Seen("slow", ROOM, 450, OVER_S))


def delivered_in_wrong_order(record: Record) -> None:
    at = next(n for n, one in enumerate(record.seen) if (one.subscriber, one.sequence) == ("slow", 99))
    record.seen[at], record.seen[at + 1] = record.seen[at + 1], record.seen[at]


def unbalanced(record: Record) -> None:
    record.health[5] = replace(record.health[5], ledger=(500, 499))


def unrevoked(record: Record) -> None:
    record.token_uses.append(TokenUse("s1", NODES[1], 40.0, 200))


def unlocked(record: Record) -> None:
    record.lock_tries[4] = replace(record.lock_tries[4], status=200)


def hung(record: Record) -> None:
    record.ops.append(Op("poll", NODES[0], BEGAN_S, 11.0, 200, wait_s=5.0))


def slow_store(record: Record) -> None:
    record.ops.append(Op("send", NODES[0], BEGAN_S, 5.3, 503, has_retry=True))


def crashed(record: Record) -> None:
    record.ops.append(Op("send", NODES[0], BEGAN_S, 0.1, 500))


def torn(record: Record) -> None:
    record.ops.append(Op("send", NODES[0], BEGAN_S, 0.1, 0))


def mute_refusal(record: Record) -> None:
    record.ops.append(Op("send", NODES[0], BEGAN_S + 5, 0.1, 503))


def late(record: Record, sent_s: float) -> None:
    """Node 1 tells of it at once, node 2 after more than 2 s; and whatever stands behind it there waits."""
    from_s = next(ack.at_s for ack in record.acks if ack.at_s >= sent_s and ack.node == NODES[0])
    number = next(ack.sequence for ack in record.acks if ack.at_s == from_s)
    record.seen = [
        replace(one, at_s=from_s + 2.1) if (one.subscriber, one.sequence) == ("two", number) else one for one in record.seen
    ]


def late_during(record: Record) -> None:
    late(record, BEGAN_S + 1)


def late_after(record: Record) -> None:
    late(record, ENDED_S + 3)


def unnamed(record: Record) -> None:
    record.health = [
        replace(one, states={**one.states, "redis": "up"}) if one.node == NODES[1] and one.at_s < BEGAN_S + 6 else one
        for one in record.health
    ]


def uncleared(record: Record) -> None:
    record.health = [
        replace(one, states={**one.states, "redis": "down"}) if one.node == NODES[1] and one.at_s > BEGAN_S + 4 else one
        for one in record.health
    ]


def untold(record: Record) -> None:
    record.told = [one for one in record.told if one.node != NODES[1]]


def told_late(record: Record) -> None:
    record.told = [replace(one, at_s=one.at_s + 2) if one.features else one for one in record.told]


def told_for_ever(record: Record) -> None:
    record.told.append(Told(NODES[0], OVER_S, ("presence",)))


MUTANTS: dict[str, list[Doctor]] = {
    "latency of what does not need it": [slower_others],
    "errors of what does not need it": [failing_others],
    "queues under their bounds": [full_queue],
    "tasks return": [leaked_tasks],
    "nothing else down": [other_down],
    "acknowledged is stored once": [lost, stored_twice, forked],
    "dense order": [hole, moved],
    "every subscriber got everything once, in order": [not_delivered, delivered_twice, delivered_in_wrong_order],
    "the ledger balances": [unbalanced],
    "no revocation undone": [unrevoked],
    "no lock reset": [unlocked],
    "every request ends in time": [hung],
    "every store answer within 5 s": [slow_store],
    "never a 500 or a hang": [crashed, torn],
    "503 with Retry-After": [mute_refusal],
    "delivery across nodes within 2 s during the fault": [late_during],
    "delivery across nodes within 2 s after the return": [late_after],
    "health names the fault within 5 s": [unnamed],
    "health clears it within 10 s": [uncleared],
    "sockets are told within 1 s of the first refusal": [untold, told_late],
    "sockets are told it is over within 10 s": [told_for_ever],
}


def test_a_good_record_holds_in_everything() -> None:
    assert set(verdicts(good()).values()) == {True}


def test_there_is_a_mutant_for_each_check() -> None:
    assert list(MUTANTS) == [name for name, _, _ in CHECKS]


@pytest.mark.parametrize(("name", "doctor"), [(name, one) for name, all_of in MUTANTS.items() for one in all_of])
def test_what_is_broken_turns_its_check_red_and_no_other(name: str, doctor: Doctor) -> None:
    record = good()
    doctor(record)
    assert {found for found, holds in verdicts(record).items() if holds is False} == {name}


def test_of_an_empty_record_nothing_is_claimed() -> None:
    record = Record(Fault("frozen", "redis", BEGAN_S, ENDED_S), NODES, frozenset({"history"}))
    assert set(verdicts(record).values()) == {None}


def test_too_few_samples_are_no_p99() -> None:
    record = good()
    record.ops = record.ops[::9]
    found = {check.name: check for check in judge(record)}["latency of what does not need it"]
    assert found.holds is None
    assert "1000 needed" in found.evidence


def test_a_log_that_could_not_be_read_proves_nothing() -> None:
    record = good()
    record.logs = {ROOM: None}
    found = verdicts(record)
    assert [found[name] for name, aspect, _ in CHECKS[5:8] if aspect == NO_LOSS] == [None, None, None]


def test_a_fault_shorter_than_naming_takes_need_not_be_named() -> None:
    record = good()
    unnamed(record)
    record.fault = replace(record.fault, ended_s=BEGAN_S + 3)
    assert verdicts(record)["health names the fault within 5 s"] is None


def test_delivery_while_sql_is_away_is_not_built_and_counts_neither_way() -> None:
    found = {check.name: check for check in judge(good("sql"))}["delivery across nodes within 2 s during the fault"]
    assert found.holds is None
    assert found.evidence.startswith("not built")


def test_who_reads_slowly_or_polls_or_sits_at_the_same_node_says_nothing_of_delivery_across_nodes() -> None:
    record = good()
    ack = Ack(ROOM, "k", "m", 1, NODES[0], 0.0)
    assert [round(seconds, 3) for _, seconds in delays(record, [ack])] == [0.05]


def test_an_aspect_falls_with_any_of_its_checks_and_is_unknown_without() -> None:
    checks = [Check("a", ISOLATED, True, ""), Check("b", ISOLATED, None, ""), Check("c", BEHAVIOUR, False, "")]
    assert [verdict(checks, name) for name in (ISOLATED, BEHAVIOUR, NO_LOSS)] == [True, False, None]


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
