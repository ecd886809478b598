"""The conversation on one socket, without I/O: what a client's text frame means, and which command may run now.

Theory. A socket is `awaiting` its token, then `open`, then `closing`; it never goes back. Each text frame is one JSON object.
While awaiting, only `auth` and `ping` are served. Commands run one after another in the order of their arrival, except those
whose row says `parallel`: these run aside, a few at a time. What may not run yet waits here, and when `is_full` the shell stops
reading, so that a client which asks faster than it is served is slowed by TCP and costs a bounded amount. A frame that is no
command with a usable id is answered with `"id": null` and an error; the socket stays.

A command whose row says `overlaps` need not be over before the next of its kind begins, only have its place: its effect comes in
the order of the places whatever happens then. So the messages of one socket share the store's transactions. Everything else
waits until all before it are over.

The shell does what the effects say, and reports with `placed`, `next_in_turn` and `next_aside` what became of each command.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import msgspec

from secureconnect.errors import BadRequest, MethodNotFound, NotAuthenticated, SecureConnectError
from secureconnect.server.endpoints import Endpoint
from secureconnect.server.wire import NUL, encode, error_object, refuse_nul

WAITING_MAX = 32
"""Commands of one socket that wait for their turn; then reading stops (interface.md §9)."""
ASIDE_MAX = 4
"""`parallel` commands of one socket under way at once (interface.md §9)."""
ID_LENGTH_MAX = 128
"""Of a text id: it is sent back with the answer."""

CommandId: TypeAlias = int | str
State = Literal["awaiting", "open", "closing"]


class _Frame(msgspec.Struct):
    """What a good frame decodes to in one step."""

    method: str
    id: (
        Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
        | Annotated[str, msgspec.Meta(max_length=ID_LENGTH_MAX)]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    params: dict[str, object] | None = None


class Command(msgspec.Struct, frozen=True):
    """An operation of the table, asked for under `id`."""

    id: CommandId
    endpoint: Endpoint
    params: Mapping[str, object]


class Say(msgspec.Struct, frozen=True):
    """Send this payload as a text frame."""

    payload: bytes


class Pong(msgspec.Struct, frozen=True):
    """Send `pong` with the server's time; with an `id`, its answer too."""

    id: CommandId | None


class Authenticate(msgspec.Struct, frozen=True):
    """Check `token`; call `opened` when it is good."""

    id: CommandId
    token: str


class Run(msgspec.Struct, frozen=True):
    """Run this command; afterwards ask `next_in_turn` until it says None."""

    command: Command


class RunAside(msgspec.Struct, frozen=True):
    """Run this command beside the others; afterwards ask `next_aside` until it says None."""

    command: Command


Effect: TypeAlias = Say | Pong | Authenticate | Run | RunAside

_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_anything = msgspec.json.Decoder().decode
_decode_error_words = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Session:
    """One socket's conversation. `methods`: every row a socket may call, by name; shared between all sessions."""

    __slots__ = (
        "_aside", "_aside_max", "_is_running", "_methods", "_overlapping", "_waiting", "_waiting_aside", "_waiting_max", "state",
    )  # fmt: skip

    def __init__(self, methods: Mapping[str, Endpoint], *, waiting_max: int = WAITING_MAX, aside_max: int = ASIDE_MAX) -> None:
        self.state: State = "awaiting"
        self._methods = methods
        self._waiting_max = waiting_max
        self._aside_max = aside_max
        self._is_running = False  # a command in turn has begun and has no place yet
        self._overlapping = 0  # those that have theirs and are not over
        self._aside = 0
        self._waiting: list[Command] = []  # at most `waiting_max`, and an empty list is a tenth of an empty deque
        self._waiting_aside: list[Command] = []

    @property
    def is_full(self) -> bool:
        """Whether the shell must stop reading until a command has ended."""
        return len(self._waiting) + len(self._waiting_aside) + self._overlapping >= self._waiting_max

    @property
    def is_busy(self) -> bool:
        """Whether a command is under way."""
        return self._is_running or self._overlapping > 0 or self._aside > 0

    def opened(self) -> None:
        """The token was good: everything is served from here."""
        assert self.state == "awaiting"
        self.state = "open"

    def close(self) -> None:
        """The end has begun: what waits is dropped, what comes is ignored. Idempotent."""
        self.state = "closing"
        self._waiting.clear()
        self._waiting_aside.clear()

    def received(self, payload: bytes) -> Effect | None:
        """One whole text frame, checked as UTF-8. At most one effect, to be done before the next frame is given."""
        if self.state == "closing":
            return None
        try:
            frame = _decode_frame(payload)
        except msgspec.ValidationError as error:
            return _answer_malformed(payload, str(error))
        except _decode_error_words:
            return _refuse(None, BadRequest("The frame is not JSON"))
        if frame.method == "ping":
            return Pong(None if frame.id is msgspec.UNSET else frame.id)
        if frame.id is msgspec.UNSET:
            return _refuse(None, _bad_field("id", "an integer or a text is required: it names the answer"))
        if NUL in payload and frame.params:
            try:
                refuse_nul(payload, frame.params)
            except BadRequest as error:
                return _refuse(frame.id, error)
        if frame.method == "auth":
            return _authenticate(frame.id, frame.params or {})
        return self._command(frame.id, frame.method, frame.params or {})

    def _command(self, command_id: CommandId, method: str, params: Mapping[str, object]) -> Effect | None:
        if self.state == "awaiting":
            return _refuse(command_id, NotAuthenticated("Send `auth` with an access token first"))
        endpoint = self._methods.get(method)
        if endpoint is None:
            return _refuse(command_id, MethodNotFound(f"There is no method {method[:100]!r}", details={"field": "method"}))
        command = Command(command_id, endpoint, params)
        if endpoint.parallel:
            if self._aside < self._aside_max:
                self._aside += 1
                return RunAside(command)
            self._waiting_aside.append(command)
        elif self._is_running or self._waiting or (self._overlapping and not endpoint.overlaps):
            self._waiting.append(command)
        else:
            self._is_running = True
            return Run(command)
        return None

    def placed(self) -> Command | None:
        """The command in turn, whose row says `overlaps`, has its place: what may begin beside it now, or None."""
        assert self._is_running
        self._is_running = False
        self._overlapping += 1
        return self._next()

    def next_in_turn(self, *, was_placed: bool = False) -> Command | None:
        """A command in turn is over: the next one to run, or None when none may."""
        if was_placed:
            assert self._overlapping
            self._overlapping -= 1
        else:
            assert self._is_running
            self._is_running = False
        return self._next()

    def _next(self) -> Command | None:
        if self._is_running or not self._waiting or (self._overlapping and not self._waiting[0].endpoint.overlaps):
            return None
        self._is_running = True
        return self._waiting.pop(0)

    def next_aside(self) -> Command | None:
        """A command aside has ended: the next one to run in its place, or None when none waits."""
        assert self._aside > 0
        if self._waiting_aside:
            return self._waiting_aside.pop(0)
        self._aside -= 1
        return None


def _authenticate(command_id: CommandId, params: Mapping[str, object]) -> Effect:
    token = params.get("token")
    if not isinstance(token, str):
        return _refuse(command_id, _bad_field("token", "an access token is required"))
    return Authenticate(command_id, token)


def _answer_malformed(payload: bytes, problem: str) -> Say:
    """It is JSON, but no command. The id is used where it is a good one, so that the caller finds its mistake."""
    try:
        frame = _decode_anything(payload)
    except _decode_error_words:
        return _refuse(None, BadRequest("The frame is not JSON"))
    if not isinstance(frame, dict):
        return _refuse(None, BadRequest("A frame is a JSON object: id, method, params"))
    command_id = _usable(frame.get("id"))
    if command_id is None and "id" in frame:
        return _refuse(None, _bad_field("id", f"an integer of 64 bits or a text of up to {ID_LENGTH_MAX} characters is required"))
    if not isinstance(frame.get("method"), str):
        return _refuse(command_id, _bad_field("method", "a text is required"))
    if not isinstance(frame.get("params"), dict | None):
        return _refuse(command_id, _bad_field("params", "an object is required"))
    return _refuse(command_id, BadRequest(problem))


def _usable(found: object) -> CommandId | None:
    if isinstance(found, str):
        return found if len(found) <= ID_LENGTH_MAX else None
    if isinstance(found, int) and not isinstance(found, bool):
        return found if -(2**63) <= found < 2**63 else None
    return None


def _bad_field(name: str, reason: str) -> BadRequest:
    return BadRequest(f"{name}: {reason}", details={"field": name, "reason": reason})


def _refuse(command_id: CommandId | None, error: SecureConnectError) -> Say:
    return Say(refusal(command_id, error))


def refusal(command_id: CommandId | None, error: SecureConnectError) -> bytes:
    """The answer that says why not."""
    return encode({"id": command_id, "error": error_object(error)})


def event(name: str, data: Mapping[str, object], *, channel: str | None = None) -> bytes:
    """An event that has no number: the one envelope of interface.md §5."""
    envelope: dict[str, object] = {"event": name}
    if channel is not None:
        envelope["channel"] = channel
    envelope["data"] = data
    return encode(envelope)
