"""One WebSocket as bytes: reading its frames, writing to it from anywhere without ever blocking, and closing it properly.

Writing. After the handshake every byte goes through `_write`, in the order of the calls: at once when the kernel takes it, else
into the outbox, which one task empties and which exists only while something waits. So the hub's pump, answers, pongs and close
frames cannot tear one another, and an idle socket costs no buffer and no task. A socket that takes nothing for `write_deadline_s`
has 1013 next in its line, behind the frame that has begun to leave, and `close_s` to take it; then it is torn down. What waits is
bounded (websocket_backlog.py says how): answers wait for room in their command's task, events are replayed later, and the reader
pauses before its replies could overflow. Should a notice of ours find no room all the same, the socket ends with 1013 too: its
client comes back and resumes, so what has not begun to leave is dropped to let the close frame through.

Closing (RFC 6455 §7). Whoever begins, both close frames cross, then our direction ends, then we read to the peer's end: closing
over unread bytes would be a reset and destroy the close frame on its way. All of it within `close_s`, or it is aborted.

The reader (`serve`) is the one task of a connection and keeps no bytes between two reads.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from secureconnect.hub import Frame, Peer
from secureconnect.ports import Transport
from secureconnect.server.websocket_backlog import Backlog
from secureconnect.server.websocket_frames import (
    BINARY,
    CLOSE,
    GOING_AWAY,
    PING,
    PING_FRAME,
    POLICY,
    PONG,
    TEXT,
    TRY_LATER,
    FrameError,
    FrameReader,
    close_code,
    close_frame,
    server_frame,
)  # fmt: skip
from secureconnect.server.websocket_limits import Counters, GatewayLimits
from secureconnect.server.websocket_receiver import Receiver
from secureconnect.server.websocket_timers import Timers

RECEIVE_BYTES = 16_384
"""Of one read: some two hundred commands, and small enough that ten thousand busy sockets do not matter."""


@dataclass(slots=True)
class Shared:
    """What all connections of a gateway have in common. `begin` starts work in the gateway's nursery, contained."""

    limits: GatewayLimits
    timers: Timers
    counters: Counters
    begin: Callable[[Connection, Callable[[], Awaitable[None]]], None]


class Connection:
    """A `hub.DirectSink`. Everything but `serve` and the `wait_…` is synchronous, never blocks and never raises."""

    __slots__ = (
        "_deadline_s", "_deadline_word", "_frames", "_has_closed", "_heard_s", "_is_last", "_outbox", "_pinged_s",
        "_read_ahead", "_receiver", "_shared", "_transport", "ended_by", "is_closing", "peer", "send_now", "tick",
    )  # fmt: skip

    def __init__(self, transport: Transport, shared: Shared, receiver: Receiver) -> None:
        self._transport = transport
        self._shared = shared
        self._receiver = receiver
        self._frames = FrameReader(shared.limits.message_bytes_max)
        self._outbox: Backlog | None = None
        self._heard_s = self._pinged_s = trio.current_time()
        self._deadline_s = math.inf
        self._deadline_word = ""
        self._has_closed = False  # the peer will say nothing more that has a meaning
        self._read_ahead = b""
        self._is_last = False  # our direction ends when the outbox is empty
        self.is_closing = False
        self.ended_by = ""
        """The reason, once it is closing."""
        self.peer: Peer | None = None
        self.send_now = transport.send_now
        self.tick = 0

    # -- reading

    def limit_messages(self, bytes_max: int) -> None:
        """From the next frame on, a larger message ends the connection."""
        self._frames.message_bytes_max = bytes_max

    def unread(self, data: bytes) -> None:
        """These bytes were read already by whoever had the transport before; they come first."""
        self._read_ahead = data

    async def serve(self) -> None:
        """Read until the connection ends. Cancellation: `release` aborts it."""
        self._schedule()
        try:
            data, self._read_ahead = self._read_ahead, b""
            going = await self._take(data) if data else True
            del data
            while going:
                going = await self._take(await self._transport.receive(RECEIVE_BYTES))
            if self._has_closed:
                await self.read_to_end()
        except OSError:
            pass  # `release` counts it

    async def read_to_end(self) -> None:
        """After the close frames have crossed: end our direction and wait for the peer's end. Raises: OSError."""
        self._has_closed = self._is_last = True
        self._end_if_last()
        while await self._transport.receive(RECEIVE_BYTES):
            pass
        while self._outbox is not None:  # the peer has ended its direction, but may still read ours
            await self._outbox.wait_progress()

    def release(self) -> None:
        """The reader's last deed: nothing of the connection is left behind."""
        self._shared.timers.forget(self)
        self.abort("lost")
        if self.peer is not None:
            self.peer.close()

    async def _take(self, data: bytes) -> bool:
        """Work through one read. False: read no more."""
        if not data:
            return False
        self._heard_s = trio.current_time()
        try:
            for opcode, payload in self._frames.feed(data):
                if opcode > BINARY:
                    self._control(opcode, payload)
                elif not self._receiver.received(payload, is_text=opcode == TEXT):
                    self._heard_s = math.inf  # while we do not listen, silence says nothing
                    await self._receiver.caught_up()
                    self._heard_s = trio.current_time()
                if self._has_closed:
                    return False
                if self._outbox is not None and self._outbox.is_crowded:
                    await self._less_crowded()
        except FrameError as error:
            self.close(error.code, error.reason)
            self._has_closed = True
            return False
        return True

    async def _less_crowded(self) -> None:
        """Until the peer has read some of what it was told, or the connection is gone."""
        self._heard_s = math.inf
        while self._outbox is not None and self._outbox.is_crowded:
            await self._outbox.wait_progress()
        self._heard_s = trio.current_time()

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.push(server_frame(PONG, payload))
        elif opcode == CLOSE:
            self._has_closed = True
            self.close(close_code(payload), "", cause="peer")

    # -- writing

    def push(self, frame: bytes) -> bool:
        """Send a frame that answers no command. False: the connection is closing, or there was no room and it is now."""
        if self.is_closing:
            return False
        if self._write(frame):
            return True
        self.hang_up("slow_consumer")
        return False

    def answer(self, frame: bytes) -> bool:
        """Send the answer of a command. False: there is no room, and `wait_answer` must bring it."""
        if self.is_closing:
            return True
        if self._outbox is None:
            self._send(frame, 0)
            return True
        return self._outbox.answer(frame)

    async def wait_answer(self, frame: bytes) -> None:
        """As `answer`, waiting for room as long as the peer reads; returns when it stands in line, or the connection ends."""
        assert self._outbox is not None, "`answer` found no room just now"
        await self._outbox.wait_answer(frame)

    def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
        """As `hub.Sink`."""
        if self.is_closing:
            return False
        outbox = self._outbox
        if outbox is None:
            self._send(frames[0].ws if len(frames) == 1 else b"".join([frame.ws for frame in frames]), len(frames))
            return True
        replaced = outbox.replaced
        taken = outbox.offer(frames, droppable=droppable)
        if outbox.replaced > replaced and self.peer is not None:
            self.peer.dropped(outbox.replaced - replaced)
        return taken

    async def wait_room(self, frames: Sequence[Frame]) -> None:
        """As `hub.Sink`."""
        while self._outbox is not None and not self._outbox.fits_frames(frames):
            await self._outbox.wait_progress()

    @property
    def left_bytes(self) -> int:
        """As `hub.Sink`."""
        return 0 if self._outbox is None else self._outbox.left_bytes

    def keep(self, rest: memoryview | bytes, frames: int) -> None:
        """As `hub.DirectSink`: the pump's own write was not taken whole."""
        self._begin_backlog(rest, frames)

    def broken(self, error: OSError) -> None:
        """As `hub.DirectSink`: the reader sees the same and ends the connection."""
        self.abort("lost")

    def hang_up(self, reason: str) -> None:
        """As `hub.Sink`: the client should come back and resume. What has not begun to leave is dropped."""
        self.close(TRY_LATER, reason)

    def attach(self, peer: Peer) -> None:
        """Called by `Hub.connect`."""
        self.peer = peer
        if self._outbox is not None:
            peer.busy()

    def _write(self, data: bytes) -> bool:
        """Send or queue bytes of our own, in order. False: no room."""
        if self._outbox is None:
            self._send(data, 0)
            return True
        return self._outbox.control(data)

    def _send(self, data: bytes, frames: int) -> None:
        """Write what is taken now, keep the rest; nothing waits in front. `frames`: how many events of the hub it ends."""
        try:
            taken = self.send_now(data)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            self.broken(error)
            return
        if taken < len(data):
            if self.peer is not None:
                self.peer.busy()
            self._begin_backlog(memoryview(data)[taken:], frames)
        elif frames and self.peer is not None:
            self.peer.delivered(frames)

    def _begin_backlog(self, rest: memoryview | bytes, frames: int) -> None:
        self._outbox = Backlog(self._shared.limits)
        self._outbox.keep(rest, frames=frames)
        self._shared.begin(self, self._drain)

    async def _drain(self) -> None:
        """Empty the outbox as the peer reads, then end."""
        while self._outbox is not None:
            with trio.move_on_after(self._shared.limits.write_deadline_s) as scope:
                try:
                    await self._transport.wait_writable()
                    self._flush()
                except OSError as error:
                    self.broken(error)
                    return
            if scope.cancelled_caught and self.is_closing:
                self.abort("stalled")
            elif scope.cancelled_caught:
                self.close(TRY_LATER, "slow_consumer", cause="stalled", is_next=True)

    def _flush(self) -> None:
        """Write what the kernel takes now. Raises: OSError."""
        outbox = self._outbox
        if outbox is None:
            return  # it ended while this waited
        while outbox:
            chunk = outbox.head()
            try:
                taken = self.send_now(chunk)
            except BlockingIOError:
                taken = 0
            if taken and self._heard_s < math.inf:
                self._heard_s = trio.current_time()  # it reads: that is life too, and a ping would stand behind all this
            left = outbox.wrote(taken)
            outbox.left_bytes += taken
            outbox.admit()
            if left and self.peer is not None:
                self.peer.delivered(left)
            if taken < len(chunk):
                break
        if not outbox:
            self._outbox = None
            if self.peer is not None and not self.is_closing:
                self.peer.idle()
            self._end_if_last()
        outbox.moved()

    def _make_way(self, frame: bytes) -> None:
        """The last frame goes before all that has not begun to leave."""
        assert self._outbox is not None
        begun = self._outbox.head()
        self._outbox.clear()
        self._outbox.keep(begun, frames=0)
        self._outbox.push(frame)

    # -- ending

    def close(self, code: int, reason: str = "", *, cause: str = "", is_next: bool = False) -> None:
        """Begin the close handshake, or answer the peer's. Idempotent. Commands under way go on, their answers are not sent.

        `is_next`: the close frame goes before what waits and has not begun to leave.
        """
        if self.is_closing:
            return
        self.leave_channels()  # no event may follow the close frame; what waits before it still leaves
        frame = close_frame(code, reason)
        if (is_next and self._outbox is not None) or not self._write(frame):
            self._make_way(frame)
        if self.is_closing:
            return  # the write found the connection gone
        self.is_closing = True
        if self._outbox is not None:
            self._outbox.refuse_answers()
        self._count(cause or reason or str(code))
        self.end_at(trio.current_time() + self._shared.limits.close_s, "")
        self._receiver.ended()

    def leave_channels(self) -> None:
        """No further events; those that wait still leave."""
        if self.peer is not None:
            for channel in self.peer.channels():
                self.peer.leave(channel)

    def abort(self, cause: str) -> None:
        """End it now, without a word. Idempotent."""
        if not self.is_closing:
            self.is_closing = True
            self._count(cause)
        if self.peer is not None:
            self.peer.busy()  # the pump must not write to a socket that is gone
        self._transport.abort()
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.refuse_answers()
            outbox.moved()
        self._receiver.ended()

    def end_at(self, when_s: float, word: str) -> None:
        """Close with 1008 and `word` at this time unless it is changed; while closing, abort."""
        self._deadline_s, self._deadline_word = when_s, word
        self._schedule()

    def wake_at(self, when_s: float) -> None:
        """Ask the receiver at this time what is due."""
        self._shared.timers.at(when_s, self)

    def due(self, now_s: float) -> float:
        """As `Timed`: the connection's clock."""
        limits = self._shared.limits
        if now_s >= self._deadline_s:
            if self.is_closing:
                self.abort("unanswered")
                return math.inf
            self.close(POLICY, self._deadline_word)
        if self.is_closing:
            return self._deadline_s
        if now_s >= self._heard_s + limits.idle_s:
            self.close(GOING_AWAY, "idle")
            return self._deadline_s
        if now_s >= self._next_ping_s and self._outbox is None:
            self._pinged_s = now_s
            self.push(PING_FRAME)
        return min(self._receiver.due(now_s), self._next_visit_s)

    @property
    def _next_ping_s(self) -> float:
        return max(self._heard_s, self._pinged_s) + self._shared.limits.ping_s

    @property
    def _next_visit_s(self) -> float:
        return min(self._deadline_s, self._next_ping_s, self._heard_s + self._shared.limits.idle_s)

    def _schedule(self) -> None:
        self._shared.timers.at(self._next_visit_s if not self.is_closing else self._deadline_s, self)

    def _end_if_last(self) -> None:
        if self._is_last and self._outbox is None:
            self._transport.send_eof()

    def _count(self, word: str) -> None:
        self.ended_by = word
        closed = self._shared.counters.closed
        closed[word] = closed.get(word, 0) + 1
