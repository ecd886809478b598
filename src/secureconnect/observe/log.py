"""Log lines: events with fields, key=value on a terminal and JSON elsewhere, without tokens, passwords or what people write.

Whoever logs leaves secrets and content out; `scrub` is the second line, for the day somebody forgets: it hides fields by name,
cuts query strings off addresses, and blanks whatever looks like a token, in tracebacks too.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN = "[hidden]"
FIELDS_HIDDEN = frozenset({
    "authorization", "body", "content", "cookie", "email", "hash", "key", "password", "payload", "query", "secret", "text",
    "token",
})  # fmt: skip
"""A field is hidden when one of these is its name or the last word of it: `access_token`, `client_secret`, `new_password`."""
ADDRESS_FIELDS = frozenset({"path", "target", "uri", "url"})
"""Their query string is cut off: clients may put a token there."""
DEPTH_MAX = 4
"""Of nested fields that are searched; what lies deeper is hidden whole."""
LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_TOKEN = re.compile(
    r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"  # a JWT (RFC 7519): base64url of `{"`, then its other parts
    r"|(?i:\bbearer\s+)\S+"
    r"|(?i:(?<=token=)|(?<=password=)|(?<=secret=))[^&\s\"']+"
)


class LineWriter:
    """Writes lines to a stream and never fails: a full disk or closed pipe under the log must not end a request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost = 0
        """Lines that could not be written."""

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed
            self.lost += 1

    debug = info = warning = error = critical = exception = log = msg


def configure(*, level: str = "info", format: str = "auto", stream: TextIO | None = None) -> LineWriter:
    """Set up logging for the whole process, once at its start.

    `level`: a key of `LEVELS`; `format`: `auto`, `text` or `json`; `stream` None: standard error.
    """
    stream = stream or sys.stderr
    as_json = format == "json" or (format == "auto" and not stream.isatty())
    writer = LineWriter(stream)
    structlog.configure(
        processors=_processors(as_json),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,  # else loggers used before this call would keep what they had
    )
    return writer


def _processors(as_json: bool) -> list[Processor]:
    """Scrubbing stands behind the traceback, which it must see, and before the renderer."""
    render: Processor = structlog.processors.JSONRenderer(_json) if as_json else _key_value
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        scrub,
        render,
    ]


def scrub(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Hide what must not be written down (the module says what)."""
    return {name: _scrubbed(name, value, DEPTH_MAX) for name, value in event.items()}


def _scrubbed(name: str, value: object, depth: int) -> object:
    if _is_secret(name):
        return HIDDEN
    if isinstance(value, str):
        if name in ADDRESS_FIELDS:
            value = value.partition("?")[0]
        return _TOKEN.sub(HIDDEN, value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth == 0:
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(k): _scrubbed(str(k), v, depth - 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed("", item, depth - 1) for item in value]
    return _TOKEN.sub(HIDDEN, repr(value))


def _is_secret(name: str) -> bool:
    return name.lower().rpartition("_")[2] in FIELDS_HIDDEN


def _json(value: object, **_: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr)


def _key_value(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """`2026-01-17T08:30:00Z info ready url=http://…`, and a traceback, if any, on the lines below."""
    fields = dict(event)
    head = [str(fields.pop(name, "")) for name in ("time", "level", "event")]
    traceback = fields.pop("exception", None)
    pairs = [f"{name}={_quoted(value)}" for name, value in fields.items()]
    return " ".join([*head, *pairs]) + (f"\n{traceback}" if traceback else "")


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else _json(value)
    return text if text.isprintable() and text and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)
