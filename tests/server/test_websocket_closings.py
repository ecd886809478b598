"""What the log says of sockets that end."""

from __future__ import annotations

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from secureconnect.server.websocket_closings import PERIOD_S, Closings


async def test_each_is_told_at_debug_and_a_storm_of_notable_ones_in_a_line_per_period(autojump_clock: MockClock) -> None:
    closings = Closings()
    with capture_logs() as logs:
        for number in range(5):
            closings.note("stalled", connection_id=f"c{number}")
        closings.note("peer", connection_id="p")
        await trio.sleep(PERIOD_S)
        closings.note("stalled", connection_id="c5")
        closings.note("internal", connection_id="i")
    assert [line["reason"] for line in logs if line["log_level"] == "debug"] == ["stalled"] * 5 + ["peer", "stalled", "internal"]
    warned = [(line["reason"], line["count"]) for line in logs if line["log_level"] == "warning"]
    assert warned == [("stalled", 1), ("stalled", 5), ("internal", 1)]
