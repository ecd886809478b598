"""One user's requests to one node over HTTP, each written into the record as it ended."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import trio

from secureconnect.drill.record import NO_ANSWER, Op, Record

PATIENCE_S: Final = 40.0
"""Longer than any request may take, so that a hang is seen and not made."""
CONNECTIONS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """`data` empty: there was none. `retry_s` None: it was not said."""

    status: int
    data: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    retry_s: float | None = None

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


class Face:
    """One node. `record` None: what is asked is not part of the experiment."""

    def __init__(self, node: str, url: str, client: httpx.AsyncClient) -> None:
        self.node, self.url = node, url
        self.record: Record | None = None
        self._client = client

    async def ask(
        self, kind: str, method: str, path: str, *, token: str = "", body: Mapping[str, object] | None = None, wait_s: float = 0.0
    ) -> Answer:
        """Never raises for what the server or the line does: that is an answer too."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        record, began_s = self.record, trio.current_time()
        answer = Answer(NO_ANSWER, code="NO_ANSWER")
        with suppress(httpx.HTTPError):
            answer = _read(await self._client.request(method, self.url + path, json=body, headers=headers))
        if record is not None and kind:
            took_s = trio.current_time() - began_s
            record.ops.append(
                Op(kind, self.node, began_s, took_s, answer.status, answer.code, answer.retry_s is not None, wait_s)
            )
        return answer


def new_client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX, keepalive_expiry=4.0)
    return httpx.AsyncClient(timeout=PATIENCE_S, limits=limits, trust_env=False)


def _read(response: httpx.Response) -> Answer:
    try:
        body = response.json()
    except ValueError:
        return Answer(response.status_code, code="NO_JSON")
    retry = response.headers.get("Retry-After", "")
    retry_s = float(retry) if retry.isdigit() else None
    if not isinstance(body, dict) or "success" not in body:
        return Answer(response.status_code, body if isinstance(body, dict) else {}, retry_s=retry_s)
    error = body.get("error") or {}
    return Answer(response.status_code, body.get("data") or {}, str(error.get("code", "")), retry_s)
