"""What `/openapi.json` says of refusals is true: the statuses that only one operation has, provoked one by one."""

from __future__ import annotations

from tests.permissions.cases import World
from tests.permissions.client import Client

NOBODY = "00000000-0000-4000-8000-000000000000"


async def test_refusals_of_accounts_are_documented(client: Client) -> None:
    world = World(client)
    await world.settle()
    taken = {**world.registration("x"), "email": world.people["member"].email}
    assert (await world.over_http("auth.register", taken, token=None)).code == "EMAIL_EXISTS"
    wrong = {"email": world.people["member"].email, "password": "a wrong one"}
    assert (await world.over_http("auth.login", wrong, token=None)).status == 401
    assert (await world.over_http("auth.login", {}, token=None)).status == 400
    assert (await world.over_http("auth.refresh", {"refresh_token": "x"}, token=None)).status == 401
    for _ in range(4):
        assert (await world.over_http("auth.login", wrong, token=None)).code == "INVALID_CREDENTIALS"
    locked = {**wrong, "password": world.registration("x")["password"]}
    assert (await world.over_http("auth.login", locked, token=None)).code == "ACCOUNT_LOCKED"
    assert ("/v1/auth/register", 409) in client.documented.answered


async def test_refusals_of_messages_are_documented(client: Client) -> None:
    world = World(client)
    await world.settle()
    scene, mine = await world.scene(), world.people["member"].token
    message = {"message_id": scene.message}
    assert (await world.over_http("messages.delete", message, token=mine)).status == 200
    assert (await world.over_http("messages.edit", {**message, "content": "x"}, token=mine)).status == 409
    assert (await world.over_http("messages.get", {"message_id": NOBODY}, token=mine)).status == 404
    too_long = {"conversation_id": scene.conversation, "content": "x" * 10_001}
    assert (await world.over_http("messages.send", too_long, token=mine)).status == 413
    assert ("/v1/messages/{message_id}", 409) in client.documented.answered


async def test_refusals_of_groups_are_documented(client: Client) -> None:
    world = World(client)
    await world.settle()
    scene, admin = await world.scene(), world.people["admin"]
    last = {"conversation_id": scene.conversation, "user_id": admin.user_id, "role": "member"}
    assert (await world.over_http("conversations.set_role", last, token=admin.token)).status == 409


async def test_health_is_documented(client: Client) -> None:
    world = World(client)
    for name in ("system.livez", "system.readyz", "system.healthz", "system.health", "system.metrics", "system.openapi"):
        assert (await world.over_http(name, {}, token=None)).status == 200
    assert {("/healthz", 200), ("/metrics", 200)} <= client.documented.answered
