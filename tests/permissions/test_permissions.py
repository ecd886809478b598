"""Every operation × every kind of caller × both faces, against the file that is kept by hand.

The fixture `client` gives a running server (`Client`); its server lives as long as one test.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.permissions.cases import FRESH_TOKEN, NEEDS_SESSION, PARAMS, WHO, Scene, World
from tests.permissions.client import Client, Reply

EXPECTED: Mapping[str, Mapping[str, list[int]]] = tomllib.loads(
    (Path(__file__).parent / "expected.toml").read_text(encoding="utf-8")
)
FACES = ("http", "socket")


def test_the_file_says_something_about_every_caller() -> None:
    assert set(EXPECTED) == set(FACES)
    wrong = [(face, name) for face in FACES for name, row in EXPECTED[face].items() if len(row) != len(WHO)]
    assert wrong == []
    assert set(EXPECTED["socket"]) <= set(EXPECTED["http"])
    assert set(PARAMS) == set(EXPECTED["http"]), "every row is asked for with parameters"


def test_over_both_faces_the_same_people_get_the_same_answers() -> None:
    """The two halves of the file are written apart and must not drift apart: a face is no way around a rule."""
    differing = [
        name
        for name, row in EXPECTED["socket"].items()
        for http, socket in zip(EXPECTED["http"][name][4:], row[4:], strict=True)
        if (200 if http < 300 else http) != socket
    ]
    assert differing == []


async def test_every_operation_has_its_row_and_every_row_its_operation(client: Client) -> None:
    assert sorted(client.operations) == sorted(EXPECTED["http"])
    on_socket = [name for name, operation in client.operations.items() if operation.on_socket]
    assert sorted(on_socket) == sorted(EXPECTED["socket"])


@pytest.mark.parametrize("face", FACES)
async def test_every_caller_gets_what_the_file_says(client: Client, face: str) -> None:
    world = World(client)
    await world.settle()
    wrong: list[str] = []
    for name, row in EXPECTED[face].items():
        for who, expected in zip(WHO, row, strict=True):
            reply = await _asked(world, face, name, who=who)
            if reply.status != expected:
                wrong.append(f"{face} {name} by {who}: expected {expected}, got {reply.status} {reply.code}")
    assert wrong == []


async def _asked(world: World, face: str, name: str, *, who: str) -> Reply:
    scene = await _scene(world, name)
    token = await world.token(who, fresh=name in FRESH_TOKEN)
    params = PARAMS[name](scene)
    if face == "socket":
        reply = await world.client.socket(name, params, token=token)
    else:
        reply = await world.over_http(name, params, token=token)
    world.heard(name, reply)
    await world.leave(scene)
    return reply


async def _scene(world: World, name: str) -> Scene:
    if name in NEEDS_SESSION:
        return await world.login_scene()
    if name.startswith(("auth.", "system.")):
        return Scene(world, "", "")
    return await world.scene()
