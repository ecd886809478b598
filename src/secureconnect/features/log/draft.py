"""What one append would store: which entries are new, which were stored before, which are refused. Pure, one for all stores.

A store looks up what it knows (the entries under the same keys, the messages that are spoken of), has the append drafted, gives
the new entries their numbers and writes them, all in one atomic step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secureconnect.features.log.model import MESSAGE_CREATED, MESSAGE_DELETED, Appended, Entry, NewEntry
from secureconnect.features.log.store import EntryRefused
from secureconnect.ids import ConversationId, MessageId


@dataclass(frozen=True, slots=True)
class Draft:
    """`fresh`: the entries to store, in order. `origin`: each asked entry's place in `fresh`, or the one stored before."""

    fresh: Sequence[NewEntry]
    origin: Sequence[int | Entry]

    @property
    def messages(self) -> int:
        """How many of the fresh ones are new messages."""
        return sum(map(is_new_message, self.fresh))

    def numbered(self, conversation: ConversationId, *, tail: int, messages: int) -> Sequence[Entry]:
        """The fresh entries as they are stored behind a log that ends at `tail` and `messages`."""
        numbered: list[Entry] = []
        for sequence, new in enumerate(self.fresh, tail + 1):
            is_message = is_new_message(new)
            messages += is_message
            number = messages if is_message else 0
            numbered.append(Entry(conversation, sequence, number, new.kind, new.data, new.key, new.actor, new.at_us, new.message))
        return numbered

    def answers(self, numbered: Sequence[Entry]) -> Sequence[Appended]:
        """What the caller of the append is told, entry by entry."""
        told: list[Appended] = []
        seen = 0
        for origin in self.origin:
            if isinstance(origin, Entry):
                told.append(Appended(origin, duplicate=True))
            else:
                told.append(Appended(numbered[origin], duplicate=origin < seen))
                seen = max(seen, origin + 1)
        return told


def draft(entries: Sequence[NewEntry], *, known: Mapping[str, Entry], deleted: Mapping[MessageId, bool]) -> Draft:
    """`known`: stored entries by key. `deleted`: which messages exist in this conversation, and whether they are gone.

    Raises: EntryRefused when an entry is about a message that does not exist here or was deleted; then nothing may be stored.
    """
    fresh: list[NewEntry] = []
    origin: list[int | Entry] = []
    places: dict[str, int] = {}
    here = dict(deleted)
    for entry in entries:
        if entry.key in known:
            origin.append(known[entry.key])
            continue
        if entry.key not in places:
            _admit(entry, here)
            places[entry.key] = len(fresh)
            fresh.append(entry)
        origin.append(places[entry.key])
    return Draft(fresh, origin)


def is_new_message(entry: NewEntry) -> bool:
    return entry.kind == MESSAGE_CREATED


def assert_sound(entry: NewEntry) -> None:
    """What only a bug in the caller can get wrong. A new message's key is its id: so it is unique without another look."""
    assert entry.data[:1] == b"{", "an entry's body is a JSON object"
    assert entry.key, "an entry has a key"
    assert not is_new_message(entry) or entry.message == entry.key, "the key of a new message is its id"


def _admit(entry: NewEntry, deleted: dict[MessageId, bool]) -> None:
    assert_sound(entry)
    if entry.message is None:
        return
    if is_new_message(entry):
        deleted[entry.message] = False
    elif entry.message not in deleted:
        raise EntryRefused("There is no such message in this conversation", details={"message_id": entry.message})
    elif deleted[entry.message]:
        raise EntryRefused("The message was deleted", details={"message_id": entry.message})
    elif entry.kind == MESSAGE_DELETED:
        deleted[entry.message] = True
