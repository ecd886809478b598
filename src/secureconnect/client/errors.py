"""What a caller of the client may act on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class ClientError(Exception):
    """Root of the client's errors."""


class NotConnected(ClientError):
    """No answer came, because the connection ended or the time was over: the call may or may not have happened."""


class AuthenticationLost(ClientError):
    """The server no longer takes the token and no new one could be had: log in again."""


class ServerRefused(ClientError):
    """The server answered with an error. `code` is its word, `retryable` whether the same call may succeed later."""

    def __init__(self, error: Mapping[str, object]) -> None:
        self.code = str(error.get("code", "INTERNAL_ERROR"))
        self.message = str(error.get("message", ""))
        self.retryable = bool(error.get("retryable", False))
        after = error.get("retry_after_s")
        self.retry_after_s = float(after) if isinstance(after, int | float) else None
        details = error.get("details")
        self.details: Mapping[str, object] = details if isinstance(details, dict) else {}
        super().__init__(f"{self.code}: {self.message}")


class NotSendable(ServerRefused):
    """Refused before it left, in the words the server would have used: VALIDATION_ERROR for what cannot be written as JSON
    (a lone surrogate, NaN), TOO_LARGE for more than the server takes in one message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__({"code": code, "message": message})


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """What a task group wrapped, however deep."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
