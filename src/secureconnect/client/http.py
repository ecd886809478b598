"""The client's requests without a socket: operations by name over HTTP, and the long-poll that stands in for live events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx

from secureconnect.client.calls import encode
from secureconnect.client.errors import AuthenticationLost, NotConnected, ServerRefused
from secureconnect.client.events import Position

Json: TypeAlias = Any
"""The `data` of an answer."""

POLL_WAIT_S = 25.0
ANSWER_S = 35.0
"""The server ends any request within 30 s; a little more for the way."""


class Api:
    """The server's operations over HTTP/1.1. Owns the connections of `client`, which the caller closes."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._routes: dict[str, tuple[str, str]] = {}

    async def call(self, name: str, params: Mapping[str, Any], *, token: str) -> Json:
        """The `data` of the answer. Path, query and body fields are all `params`, as on the socket.

        Raises: ServerRefused (NotSendable before it leaves), AuthenticationLost (401), NotConnected (no answer).
        """
        method, path = await self._route(name)
        rest = dict(params)
        for part in path.split("/"):
            if part.startswith("{"):
                path = path.replace(part, quote(str(rest.pop(part[1:-1])), safe=""))
        if method in ("GET", "DELETE"):
            return await self._send(method, path, token, query=rest)
        return await self._send(method, path, token, body=rest)

    async def poll(
        self, channels: list[str] | str, after: Mapping[str, Position], *, token: str, wait_s: float = POLL_WAIT_S
    ) -> Mapping[str, Any]:
        """`{events, after, degraded?}`: waits up to `wait_s` seconds for the first event."""
        body = {"channels": channels, "after": dict(after), "wait_s": wait_s}
        answer = await self._send("POST", "/v1/realtime/poll", token, body=body, patience_s=wait_s + 10)
        assert isinstance(answer, dict)
        return answer

    async def _route(self, name: str) -> tuple[str, str]:
        """(method, path with `{field}`) of an operation, from the server's own schema, read once."""
        if not self._routes:
            response = await self._request("GET", "/openapi.json", {}, None, None, ANSWER_S)
            if response.status_code != 200:
                raise NotConnected(f"no schema: status {response.status_code}")
            for path, methods in response.json()["paths"].items():
                for method, row in methods.items():
                    if isinstance(row, dict) and not row.get("deprecated"):
                        self._routes.setdefault(str(row.get("operationId")), (method.upper(), path))
        if name not in self._routes:
            raise ServerRefused({"code": "METHOD_NOT_FOUND", "message": f"no operation {name}"})
        return self._routes[name]

    async def _send(
        self,
        method: str,
        path: str,
        token: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        patience_s: float = ANSWER_S,
    ) -> Json:
        headers = {"Authorization": f"Bearer {token}"}
        response = await self._request(method, path, headers, query, body, patience_s)
        try:
            answer = response.json()
        except json.JSONDecodeError:
            raise NotConnected(f"status {response.status_code} without an answer") from None
        if response.status_code == 401:
            raise AuthenticationLost(str(answer.get("error", {}).get("message", "token refused")))
        if response.status_code >= 400:
            raise ServerRefused(answer.get("error") or {"code": "INTERNAL_ERROR", "message": response.reason_phrase})
        return answer.get("data")

    async def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        query: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        patience_s: float,
    ) -> httpx.Response:
        encode(query)  # refuses what no URL can hold either
        content = None if body is None else encode(body)
        if content is not None:
            headers = {**headers, "Content-Type": "application/json"}
        try:
            return await self._client.request(
                method, path, params=dict(query or {}), content=content, headers=dict(headers), timeout=patience_s
            )
        except httpx.HTTPError as error:
            raise NotConnected(str(error) or type(error).__name__) from error
