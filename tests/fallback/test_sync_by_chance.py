"""Outages, crashes at any write, failing disks and replays in any order: each item is home and counted in one category once."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fallback.kit import Home, Place, SetClock, place

from secureconnect.errors import SecureConnectError
from secureconnect.fallback import sync
from secureconnect.fallback.receipt import CATEGORIES
from secureconnect.testing.faulty_disk import FaultyDisk, PowerCut

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["union", "union", "latest", "drop", "refused"]), st.integers(0, 2)),
        st.tuples(st.just("away after"), st.integers(0, 3)),
        st.tuples(st.just("back"), st.just(0)),
        st.tuples(st.just("replay"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("power cut at write"), st.integers(0, 3)),
        st.tuples(st.just("torn at"), st.integers(0, 120)),
        st.tuples(st.just("disk fails"), st.integers(0, 1)),
        st.tuples(st.just("time passes"), st.integers(0, 5)),
    ),
    max_size=30,
)


@dataclass
class Run:
    """One history. `kept`: items whose caller was told so, by key. `unsure`: its caller got no answer, or an error."""

    home: Home = field(default_factory=Home)
    clock: SetClock = field(default_factory=SetClock)
    disk: FaultyDisk = field(default_factory=FaultyDisk)
    kept: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    repeats: int = 0
    """Marks that a crash or a disk has prevented: so often a batch may be brought home again."""
    torn: int = 0

    async def go(self, steps: list[Step]) -> None:
        here = await self.start()
        for number, (what, how) in enumerate(steps):
            try:
                await self.step(here, what, how, str(number))
            except PowerCut:
                self.repeats += 1
                self.disk = self.disk.after_power_cut()
                here = await self.start()
            if what == "restart":
                here = await self.start()
        await self.end(here)

    async def start(self) -> Place:
        self.clock.us += 1  # no start is so fast: the time tells one receipt from another
        here = place(self.disk, self.home, self.clock)
        await here.sync.load()
        return here

    async def step(self, here: Place, what: str, how: int, key: str) -> None:
        if what in {"union", "latest", "drop", "refused"}:
            await self.keep(here, what, f"height {how}" if what == "latest" else key, key)
        elif what == "away after":
            self.home.away_after = how
            here.sync.went_away()
        elif what == "back":
            self.home.away_after = None
        elif what == "replay":
            await self.replay(here)
        elif what == "power cut at write":
            self.disk.writes_left, self.disk.torn = how, self.torn
        elif what == "torn at":
            self.torn = how
        elif what == "disk fails":
            self.disk.fails = bool(how)
        elif what == "time passes":
            self.clock.us += how

    async def keep(self, here: Place, kind: str, key: str, mark: str) -> None:
        self.unsure.add(mark)
        try:
            await here.sync.keep(kind, key, mark.encode(), expires_us=self.clock.us + 5 if int(mark) % 3 == 0 else None)
        except SecureConnectError:
            return
        self.unsure.discard(mark)
        self.kept[mark] = kind

    async def replay(self, here: Place) -> None:
        try:
            await here.sync.replay()
        except SecureConnectError:
            self.repeats += self.disk.fails

    async def end(self, here: Place) -> None:
        self.disk.fails, self.disk.writes_left, self.home.away_after = False, None, None
        await here.sync.replay()
        assert here.sync.pending == []
        again = await self.start()
        last = await again.sync.replay()
        assert last is None or not last.kept  # a torn beginning without an item
        self.judge(again)

    def judge(self, here: Place) -> None:
        receipts = here.receipts.all
        assert len({receipt.id for receipt in receipts}) == len(receipts)
        counted = sum(receipt.kept for receipt in receipts)
        assert len(self.kept) <= counted <= len(self.kept) + len(self.unsure)
        total = {category: sum(receipt.total(category) for receipt in receipts) for category in CATEGORIES}
        kinds = list(self.kept.values())
        assert total["dropped"] + total["expired"] >= kinds.count("drop")
        assert total["conflicted"] + total["expired"] >= kinds.count("refused")
        expirable = {mark for mark in self.kept if int(mark) % 3 == 0}
        unions = {mark for mark, kind in self.kept.items() if kind == "union"}
        assert unions - expirable <= self.home.names
        assert self.home.names <= unions | self.unsure
        assert all(self.home.deeds.count(name) <= 1 + self.repeats for name in self.home.names)
        if not self.repeats and not self.unsure:
            assert sum(total.values()) == counted == len(kinds)
            assert total["superseded"] <= kinds.count("latest")  # a union is superseded by its own repetition only


@settings(max_examples=300)
@given(STEPS, st.sampled_from([1, 2, 64]))
def test_every_item_is_brought_home_once_and_counted_once(steps: list[Step], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, "BATCH", batch)
        anyio.run(Run().go, steps, backend="trio")
