"""What held, of what was seen: each check is a pure function of the record, and says `None` where too little was seen to tell.

A check judges what clients could see, and `/healthz` where it is itself what is judged; it trusts nothing that the server says of
itself about messages. tests/drill/test_oracle.py doctors a good record once for each check and sees exactly it turn red.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from secureconnect.drill.record import NO_ANSWER, Ack, Op, Record

ISOLATED, NO_CASCADE, NO_LOSS, BEHAVIOUR = "isolated", "no cascade", "no data loss", "fail behaviour"

REQUEST_S = 30.0
STORE_S = 5.25
"""One store call, 5 s, and 250 ms for a real machine (failure-policy.md §1, reliability.md G3)."""
POLL_GRACE_S = 5.25
DELIVERY_S = 2.0
NAMED_S = 5.0
CLEARED_S = 10.0
TOLD_S = 1.0
REVOKED_S = 2.0
SAMPLES_MIN = 1_000
"""For a p99 (failure-policy.md §3)."""
FEW_MIN = 20
"""For what holds of every single one: below, its holding says nothing."""
LEFT_OUT_S = 2.0
"""After the fault, of the latency; not of the errors."""
TIMES, PLUS_S, POINTS = 1.10, 0.1, 0.5
TASKS_TIMES, TASKS_PLUS = 1.25, 50
"""How many more tasks than before the fault are no growth: connections of the load come and go."""


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant's verdict. `holds` None: not measured. `evidence`: the figures it rests on."""

    name: str
    aspect: str
    holds: bool | None
    evidence: str


Judge = Callable[[Record], tuple[bool | None, str]]


# -- isolated


def latency_of_others(record: Record) -> tuple[bool | None, str]:
    fault = record.fault
    before = [op.took_s for op in _independent(record) if record.began_s <= op.at_s and op.ended_s < fault.began_s]
    during = [op.took_s for op in _independent(record) if fault.began_s + LEFT_OUT_S <= op.at_s < fault.ended_s]
    if min(len(before), len(during)) < SAMPLES_MIN:
        return None, f"{len(before)} samples before and {len(during)} during the fault, {SAMPLES_MIN} needed"
    was, now = percentile(before, 99), percentile(during, 99)
    bound = max(TIMES * was, was + PLUS_S)
    return now <= bound, f"p99 {_ms(was)} before, {_ms(now)} during ({len(during)} samples), bound {_ms(bound)}"


def errors_of_others(record: Record) -> tuple[bool | None, str]:
    fault = record.fault
    before = [op for op in _independent(record) if record.began_s <= op.at_s < fault.began_s]
    during = [op for op in _independent(record) if fault.began_s <= op.at_s < fault.ended_s]
    if min(len(before), len(during)) < SAMPLES_MIN / POINTS / 10:  # 200: one error is then the half point
        return None, f"{len(before)} samples before and {len(during)} during the fault"
    was, now = _percent_bad(before), _percent_bad(during)
    return now - was <= POINTS, f"{was:.2f} % errors before, {now:.2f} % during ({len(during)} samples)"


# -- no cascade


def queues_bounded(record: Record) -> tuple[bool | None, str]:
    over = [(name, *found) for one in record.health for name, found in one.queues.items() if found[0] > found[1]]
    looks = sum(len(one.queues) for one in record.health)
    if looks < FEW_MIN:
        return None, f"{looks} looks at a queue"
    return not over, f"{looks} looks, above its bound {len(over)}" + (f": {over[0]}" if over else "")


def tasks_return(record: Record) -> tuple[bool | None, str]:
    grown, measured = [], 0
    for node in record.nodes:
        before = [one.tasks for one in record.health if one.node == node and one.at_s < record.fault.began_s]
        after = [one.tasks for one in record.health if one.node == node and one.at_s > record.fault.ended_s]
        if before and after:
            measured += 1
            if after[-1] > max(before) * TASKS_TIMES + TASKS_PLUS:
                grown.append(f"{node} {max(before)} -> {after[-1]}")
    if measured < len(record.nodes):
        return None, f"{measured} of {len(record.nodes)} nodes told their tasks before and after"
    return not grown, f"tasks grown for good: {', '.join(grown) or 'nowhere'}"


def nothing_else_down(record: Record) -> tuple[bool | None, str]:
    others = Counter(
        f"{one.node}: {name}"
        for one in record.health
        for name, state in one.states.items()
        if name != record.fault.dependency and state == "down"
    )
    looks = sum(len(one.states) > 1 for one in record.health)
    if looks < FEW_MIN:
        return None, f"{looks} looks at other dependencies"
    return not others, f"{looks} looks; others down: {', '.join(others) or 'none'}"


# -- no data loss


def stored_once(record: Record) -> tuple[bool | None, str]:
    unread = [name for name, log in record.logs.items() if log is None]
    if unread or len(record.acks) < FEW_MIN:
        return None, f"{len(record.acks)} acknowledged, logs that could not be read: {len(unread)}"
    times = {name: Counter(entry.message for entry in log or ()) for name, log in record.logs.items()}
    lost = [ack.key for ack in record.acks if not times.get(ack.conversation, Counter())[ack.message]]
    twice = [message for found in times.values() for message, count in found.items() if message and count > 1]
    ids = defaultdict(set)
    for ack in record.acks:
        ids[ack.key].add(ack.message)
    forked = [key for key, messages in ids.items() if len(messages) > 1]
    evidence = f"{len(record.acks)} acknowledged, {len(lost)} lost, {len(twice) + len(forked)} duplicated"
    return not (lost or twice or forked), evidence


def order_dense(record: Record) -> tuple[bool | None, str]:
    entries = sum(len(log or ()) for log in record.logs.values())
    if entries < FEW_MIN or None in record.logs.values():
        return None, f"{entries} entries read"
    broken = [
        name for name, log in record.logs.items() if [one.sequence for one in log or ()] != list(range(1, len(log or ()) + 1))
    ]
    where = {(name, one.message): one.sequence for name, log in record.logs.items() for one in reversed(log or ())}
    moved = [ack.key for ack in record.acks if where.get((ack.conversation, ack.message), ack.sequence) != ack.sequence]
    return not (broken or moved), f"{entries} entries, {len(broken)} logs with holes, {len(moved)} not under their number"


def delivered_once(record: Record) -> tuple[bool | None, str]:
    logs = {name: {entry.sequence for entry in log} for name, log in record.logs.items() if log is not None}
    got: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in record.seen:
        got[one.subscriber, one.conversation].append(one.sequence)
    wanted = len(record.subscribers) * sum(map(len, logs.values()))
    if wanted < FEW_MIN or len(logs) < len(record.logs):
        return None, f"{wanted} deliveries expected"
    missed = twice = disordered = 0
    for subscriber in record.subscribers:
        for conversation, stored in logs.items():
            sequences = got[subscriber.name, conversation]
            missed += len(stored - set(sequences))
            twice += len(sequences) - len(set(sequences))
            disordered += sum(a > b for a, b in pairwise(sequences))
    evidence = f"{wanted} deliveries expected, {missed} missed, {twice} repeated, {disordered} out of order"
    return not (missed or twice or disordered), evidence


def ledger_balances(record: Record) -> tuple[bool | None, str]:
    looks = [(one.node, *one.ledger) for one in record.health if one.ledger is not None]
    if len(looks) < FEW_MIN:
        return None, f"{len(looks)} looks at a ledger"
    off = [look for look in looks if look[1] != look[2]]
    return not off, f"{len(looks)} looks, {len(off)} off" + (f", {off[0]}" if off else "")


def revocations_hold(record: Record) -> tuple[bool | None, str]:
    since = {one.session: one.at_s for one in record.revoked}
    due = [use for use in record.token_uses if use.session in since and use.at_s >= since[use.session] + REVOKED_S]
    if len(due) < 3:
        return None, f"{len(due)} tries with the token of a session that was ended"
    undone = [use for use in due if 200 <= use.status < 300]
    return not undone, f"{len(since)} logouts, {len(due)} tries afterwards, {len(undone)} let in"


def locks_hold(record: Record) -> tuple[bool | None, str]:
    if len(record.lock_tries) < 3:
        return None, f"{len(record.lock_tries)} tries on a locked account"
    opened = [one for one in record.lock_tries if 200 <= one.status < 300]
    return not opened, f"{len(record.lock_tries)} tries on a locked account, {len(opened)} let in"


# -- fail behaviour


def answered_in_time(record: Record) -> tuple[bool | None, str]:
    if len(record.ops) < FEW_MIN:
        return None, f"{len(record.ops)} requests"
    late = [op for op in record.ops if op.took_s > (op.wait_s + POLL_GRACE_S if op.wait_s else REQUEST_S)]
    slowest = max(record.ops, key=lambda op: op.took_s - op.wait_s)
    return not late, f"{len(record.ops)} requests, {len(late)} past their deadline, slowest {slowest.kind} {slowest.took_s:.2f} s"


def store_answers(record: Record) -> tuple[bool | None, str]:
    asked = [op for op in record.ops if not op.wait_s]
    if len(asked) < FEW_MIN:
        return None, f"{len(asked)} requests"
    late = Counter(op.kind for op in asked if op.took_s > STORE_S)
    slowest = max(asked, key=lambda op: op.took_s)
    evidence = f"{len(asked)} requests, {late.total()} above {STORE_S} s, slowest {slowest.kind} {slowest.took_s:.2f} s"
    return not late, evidence + (f" ({_shown(late)})" if late else "")


def never_500(record: Record) -> tuple[bool | None, str]:
    if len(record.ops) < FEW_MIN:
        return None, f"{len(record.ops)} requests"
    bad = Counter(
        f"{op.kind} {op.status or 'no answer'}"
        for op in record.ops
        if op.status == NO_ANSWER or (op.status >= 500 and op.status != 503)
    )
    return not bad, f"{len(record.ops)} requests, 500s, hangs and torn: {bad.total()}" + (f" ({_shown(bad)})" if bad else "")


def retry_told(record: Record) -> tuple[bool | None, str]:
    refused = [op for op in record.ops if op.status == 503]
    if not refused:
        return None, "nothing was answered 503"
    mute = Counter(op.kind for op in refused if not op.has_retry)
    return not mute, f"{len(refused)} times 503, {mute.total()} without Retry-After" + (f" ({_shown(mute)})" if mute else "")


def delivered_during(record: Record) -> tuple[bool | None, str]:
    """Only where messages can be stored while it is away: what lives in SQL waits for the journal."""
    if record.fault.dependency == "sql":
        return None, "not built: nothing is accepted while SQL is away"
    fault = record.fault
    return _delivery(record, [ack for ack in record.acks if fault.began_s <= ack.at_s < fault.ended_s], "during")


def delivered_after(record: Record) -> tuple[bool | None, str]:
    return _delivery(record, [ack for ack in record.acks if ack.at_s >= record.fault.ended_s + DELIVERY_S], "after")


def fault_named(record: Record) -> tuple[bool | None, str]:
    fault = record.fault
    if not fault.is_outage or fault.seconds < NAMED_S:
        return None, f"a fault of {fault.seconds:.1f} s need not be named"
    took = []
    for node in record.nodes:
        looks = [one for one in record.health if one.node == node and fault.began_s <= one.at_s]
        if not looks:
            return None, f"nobody looked at {node}"
        named = [one.at_s for one in looks if one.states.get(fault.dependency) in ("slow", "down")]
        took.append(named[0] - fault.began_s if named else math.inf)
    return max(took) <= NAMED_S, f"named after {_each(record, took)}"


def fault_cleared(record: Record) -> tuple[bool | None, str]:
    fault, took = record.fault, []
    for node in record.nodes:
        looks = [one for one in record.health if one.node == node]
        bad = [one.at_s for one in looks if one.at_s >= fault.began_s and one.states.get(fault.dependency) in ("slow", "down")]
        if bad:
            good = [one.at_s for one in looks if one.at_s > bad[-1] and one.states.get(fault.dependency) == "up"]
            took.append(max(0.0, good[0] - fault.ended_s) if good else math.inf)
    if not took:
        return None, "it was never named"
    return max(took) <= CLEARED_S, f"named no more after {', '.join(_seconds(one) for one in took)}"


def degraded_told(record: Record) -> tuple[bool | None, str]:
    took = []
    for node in record.nodes:
        refused = _first_refusal(record, node)
        if refused is not None:
            told = [one.at_s for one in record.told if one.node == node and one.features and one.at_s >= record.fault.began_s]
            took.append(max(0.0, told[0] - refused) if told else math.inf)
    if not took:
        return None, "nothing was refused"
    return max(took) <= TOLD_S, f"sockets told {', '.join(_seconds(one) for one in took)} after the first refusal"


def degraded_cleared(record: Record) -> tuple[bool | None, str]:
    took = []
    for node in record.nodes:
        told = [one for one in record.told if one.node == node and one.at_s >= record.fault.began_s]
        if any(one.features for one in told):
            took.append(math.inf if told[-1].features else max(0.0, told[-1].at_s - record.fault.ended_s))
    if not took:
        return None, "nobody was told of anything degraded"
    return max(took) <= CLEARED_S, f"cleared {', '.join(_seconds(one) for one in took)} after the return"


CHECKS: Sequence[tuple[str, str, Judge]] = (
    ("latency of what does not need it", ISOLATED, latency_of_others),
    ("errors of what does not need it", ISOLATED, errors_of_others),
    ("queues under their bounds", NO_CASCADE, queues_bounded),
    ("tasks return", NO_CASCADE, tasks_return),
    ("nothing else down", NO_CASCADE, nothing_else_down),
    ("acknowledged is stored once", NO_LOSS, stored_once),
    ("dense order", NO_LOSS, order_dense),
    ("every subscriber got everything once, in order", NO_LOSS, delivered_once),
    ("the ledger balances", NO_LOSS, ledger_balances),
    ("no revocation undone", NO_LOSS, revocations_hold),
    ("no lock reset", NO_LOSS, locks_hold),
    ("every request ends in time", BEHAVIOUR, answered_in_time),
    ("every store answer within 5 s", BEHAVIOUR, store_answers),
    ("never a 500 or a hang", BEHAVIOUR, never_500),
    ("503 with Retry-After", BEHAVIOUR, retry_told),
    ("delivery across nodes within 2 s during the fault", BEHAVIOUR, delivered_during),
    ("delivery across nodes within 2 s after the return", BEHAVIOUR, delivered_after),
    ("health names the fault within 5 s", BEHAVIOUR, fault_named),
    ("health clears it within 10 s", BEHAVIOUR, fault_cleared),
    ("sockets are told within 1 s of the first refusal", BEHAVIOUR, degraded_told),
    ("sockets are told it is over within 10 s", BEHAVIOUR, degraded_cleared),
)


def judge(record: Record) -> list[Check]:
    """Every check, in the order of the report."""
    return [Check(name, aspect, *of(record)) for name, aspect, of in CHECKS]


def verdict(checks: Iterable[Check], aspect: str) -> bool | None:
    """Of all checks of one aspect: False when one fell short, None when none could be measured."""
    found = [check.holds for check in checks if check.aspect == aspect and check.holds is not None]
    return all(found) if found else None


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank. `values` must not be empty."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def delays(record: Record, acks: Iterable[Ack]) -> list[tuple[float, float]]:
    """`(when acknowledged, seconds until seen)` at prompt subscribers of other nodes; infinite: never seen."""
    first: dict[tuple[str, str, int], float] = {}
    for one in record.seen:
        first.setdefault((one.subscriber, one.conversation, one.sequence), one.at_s)
    readers = [one for one in record.subscribers if one.is_prompt and one.node]
    return [
        (ack.at_s, max(0.0, first.get((reader.name, ack.conversation, ack.sequence), math.inf) - ack.at_s))
        for ack in acks
        for reader in readers
        if reader.node != ack.node
    ]


def _delivery(record: Record, acks: Sequence[Ack], when: str) -> tuple[bool | None, str]:
    took = [seconds for _, seconds in delays(record, acks)]
    if len(took) < FEW_MIN:
        return None, f"{len(took)} deliveries across nodes {when} the fault"
    late = sum(one > DELIVERY_S for one in took)
    evidence = f"{len(took)} across nodes {when} the fault, p99 {_seconds(percentile(took, 99))}, longest {_seconds(max(took))}"
    return not late, f"{evidence}, above {DELIVERY_S:g} s: {late}"


def _first_refusal(record: Record, node: str) -> float | None:
    """As a client or an operator can see it: a 503, or an open breaker, while the fault lasts."""
    fault = record.fault
    times = [op.ended_s for op in record.ops if op.node == node and op.status == 503]
    times += [one.at_s for one in record.health if one.node == node and one.breakers.get(fault.dependency) == "open"]
    return min((at for at in times if fault.began_s <= at <= fault.ended_s), default=None)


def _independent(record: Record) -> Iterable[Op]:
    return (op for op in record.ops if op.kind in record.independent)


def _percent_bad(ops: Sequence[Op]) -> float:
    return 100 * sum(not op.is_good for op in ops) / len(ops)


def _each(record: Record, took: Sequence[float]) -> str:
    return ", ".join(f"{_seconds(one)} at {node}" for node, one in zip(record.nodes, took, strict=True))


def _shown(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counted.most_common(4))


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f} s"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
