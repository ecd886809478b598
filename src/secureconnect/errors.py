"""The whole exception tree: what went wrong, said once, with its wire code, HTTP status and whether trying again may help.

Two branches. `Refused`: the caller must change something. `Unavailable`: later may help. Rooms subclass these
(`PollClosed(Conflict)`); facts are attributes and `str()` renders them. Anything else that reaches
a door is a bug and answers 500.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

Details = Mapping[str, object]


class SecureConnectError(Exception):
    """Root. `code` is the UPPER_SNAKE word on the wire, `status` the HTTP status, `retryable` what clients may do."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        details: Details | None = None,
        retry_after_s: float | None = None,
        code: str | None = None,
        inside: str = "",
    ) -> None:
        """`code` narrows the class's word (`E2EE_BLOCKED` is a kind of `Forbidden`); it must be in `CODES`.

        `message` is for whoever asked, `inside` for whoever runs the server (paths, a driver's words): logs and the console
        show both, answers only the first.
        """
        super().__init__(message or type(self).__doc__ or type(self).__name__)
        self.message = str(self.args[0]).splitlines()[0]
        self.inside = inside
        self.details: dict[str, object] = dict(details or {})
        self.retry_after_s = retry_after_s
        self.word = code or type(self).code
        assert self.word in CODES, f"unknown error code {self.word}"

    def __str__(self) -> str:
        return f"{self.message}: {self.inside}" if self.inside else self.message


class Refused(SecureConnectError):
    """The request cannot be served as it is."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "VALIDATION_ERROR"


class BadRequest(Refused):
    """The request is not valid."""


class MethodNotFound(Refused):
    """There is no such operation."""

    code: ClassVar[str] = "METHOD_NOT_FOUND"


class NotAuthenticated(Refused):
    """A valid access token is required."""

    status: ClassVar[int] = 401
    code: ClassVar[str] = "UNAUTHORIZED"


class Forbidden(Refused):
    """You may not do this."""

    status: ClassVar[int] = 403
    code: ClassVar[str] = "FORBIDDEN"


class NotFound(Refused):
    """There is no such thing."""

    status: ClassVar[int] = 404
    code: ClassVar[str] = "NOT_FOUND"


class MethodNotAllowed(Refused):
    """This address does not take that HTTP method."""

    status: ClassVar[int] = 405
    code: ClassVar[str] = "METHOD_NOT_ALLOWED"


class Conflict(Refused):
    """It conflicts with what is there."""

    status: ClassVar[int] = 409
    code: ClassVar[str] = "CONFLICT"


class TooLarge(Refused):
    """It is too large."""

    status: ClassVar[int] = 413
    code: ClassVar[str] = "TOO_LARGE"


class RateLimited(Refused):
    """Too many requests."""

    status: ClassVar[int] = 429
    code: ClassVar[str] = "RATE_LIMIT_EXCEEDED"
    retryable: ClassVar[bool] = True


class Unavailable(SecureConnectError):
    """Not available now; trying again later may help."""

    status: ClassVar[int] = 503
    code: ClassVar[str] = "SERVICE_UNAVAILABLE"
    retryable: ClassVar[bool] = True

    def __init__(
        self,
        message: str = "",
        *,
        details: Details | None = None,
        retry_after_s: float | None = 1.0,
        code: str | None = None,
        inside: str = "",
    ) -> None:
        super().__init__(message, details=details, retry_after_s=retry_after_s, code=code, inside=inside)


class BackendDown(Unavailable):
    """Something this operation needs is away. `name` is the dependency: sql, redis, cassandra, s3, …"""

    def __init__(self, name: str, message: str = "", *, retry_after_s: float | None = 1.0, inside: str = "") -> None:
        super().__init__(
            message or f"{name} is not available",
            details={"dependency": name},
            retry_after_s=retry_after_s,
            inside=inside,
        )
        self.name = name


class StorageFull(BackendDown):
    """The store takes no more data (disk full or read-only); nothing was stored."""


class Overloaded(Unavailable):
    """A bounded queue is full; nothing was done."""

    code: ClassVar[str] = "OVERLOADED"


class AtCapacity(Unavailable):
    """Server at capacity, please try again later"""

    code: ClassVar[str] = "SERVER_AT_CAPACITY"


class BreakerOpen(Unavailable):
    """Calls to a failing dependency are refused for now."""


class DeadlineExceeded(Unavailable):
    """A store call did not end within its deadline."""


class OutcomeUnknown(Unavailable):
    """It may have happened: look the idempotency key up, or append again under it."""


class RequestTimeout(Unavailable):
    """The request did not end within its deadline. `details.stage` names what used the time."""

    status: ClassVar[int] = 504
    code: ClassVar[str] = "REQUEST_TIMEOUT"


class ConfigError(SecureConnectError):
    """A setting is wrong; the message names it, says what is wrong and gives an example. Stops the start."""

    code: ClassVar[str] = "CONFIG_ERROR"


class CannotListen(ConfigError):
    """The address is taken, forbidden, or none of this machine's."""


CODES: dict[str, str] = {
    "INTERNAL_ERROR": "An unexpected error in the server; it is logged and counted.",
    "VALIDATION_ERROR": "A field is missing or wrong; details.field names it.",
    "METHOD_NOT_FOUND": "No operation has this name.",
    "METHOD_NOT_ALLOWED": "The address exists, but not for this HTTP method.",
    "UNAUTHORIZED": "No token, or one that is not valid.",
    "TOKEN_EXPIRED": "The token's life is over: refresh it.",
    "TOKEN_REVOKED": "The session was ended: log in again.",
    "INVALID_CREDENTIALS": "E-mail or password is wrong.",
    "ACCOUNT_LOCKED": "Too many failed tries; Retry-After says how long.",
    "FORBIDDEN": "The caller may not do this.",
    "E2EE_BLOCKED": "Not possible while end-to-end encryption is on.",
    "NOT_FOUND": "No such thing, or none that the caller may know of.",
    "CONFLICT": "It conflicts with what is there.",
    "EMAIL_EXISTS": "The e-mail address is registered already.",
    "USERNAME_EXISTS": "The user name is taken.",
    "TOO_LARGE": "A body, frame or text is over its limit.",
    "RATE_LIMIT_EXCEEDED": "Too many requests of this class.",
    "SERVICE_UNAVAILABLE": "Something needed is away; Retry-After says when to come back.",
    "OVERLOADED": "A bounded queue is full; nothing was done.",
    "SERVER_AT_CAPACITY": "No more connections of this kind.",
    "REQUEST_TIMEOUT": "The deadline passed; details.stage names what used the time.",
    "DB_POOL_EXHAUSTED": "All database connections are busy.",
    "JOURNAL_FULL": "The node's journal is full while the message store is away.",
    "CONFIG_ERROR": "A setting is wrong.",
}
"""Every wire code with its meaning: the one list, published in `/openapi.json` as `x-error-codes`."""
