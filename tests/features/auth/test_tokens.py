"""What is a token of ours, and what only looks like one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey
from tests.features.auth.kit import SECRET, START_US, FixedClock, user

from secureconnect.errors import NotAuthenticated
from secureconnect.features.auth import tokens as module
from secureconnect.features.auth.tokens import RefreshToken, Tokens
from secureconnect.ids import SessionId, is_uuid

ADA = user(1, email="ada@example.com", username="ada")
SESSION = SessionId("00000000-0000-4000-8000-000000000001")
NONCE = bytes(range(32))
START_S = START_US // 1_000_000
STRANGE_HEADERS: list[object] = [
    *[{"alg": "none"}, {"alg": "None"}, {"alg": "nOnE"}, {"alg": ""}, {"alg": None}, {"alg": 7}, {"alg": ["HS256"]}, {"alg": {}}],
    *[{}, [], "HS256", "alg", ["alg"], None, 7],
    *[{"alg": "HS256", "crit": ["x"], "x": 1}, {"alg": "HS256", "crit": 7}, {"alg": "HS256", "kid": {}}],
    *[{"alg": "HS256", "b64": False}, {"alg": "HS256", "b64": False, "crit": ["b64"]}],
    {"alg": "HS256", "jwk": {"kty": "oct", "k": "eA"}},
]
SIGNED_ALIKE = OctKey.import_key(SECRET)


def made(clock: FixedClock | None = None) -> tuple[Tokens, RefreshToken, str]:
    tokens = Tokens(SECRET, clock or FixedClock())
    refresh = tokens.first_refresh(SESSION, NONCE)
    return tokens, refresh, tokens.access(ADA, refresh, START_US)


def forged(change: Callable[[dict[str, Any]], object], *, alg: str = "HS256", key: OctKey = SIGNED_ALIKE) -> str:
    """A token like ours, but for `change`, honestly signed."""
    claims = payload(made()[2])
    change(claims)
    return jws.serialize_compact({"alg": alg, "typ": "JWT"}, json.dumps(claims), key, algorithms=[alg])


def payload(token: str) -> dict[str, Any]:
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert isinstance(claims, dict)
    return claims


def b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def refused(tokens: Tokens, token: str, code: str = "UNAUTHORIZED") -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        tokens.verify(token)
    assert refusal.value.word == code


def test_an_access_token_says_who_and_for_how_long() -> None:
    tokens, _, access = made()
    identity = tokens.verify(access)
    assert (identity.user, identity.session, identity.username, identity.email, identity.role) == (
        ADA.id, SESSION, "ada", "ada@example.com", "user",
    )  # fmt: skip
    assert identity.expires_at_s == START_S + 900


def test_the_claims_are_those_that_old_services_read() -> None:
    claims = payload(made()[2])
    assert is_uuid(claims.pop("jti"))
    assert claims == {
        "user_id": ADA.id, "email": "ada@example.com", "username": "ada", "role": "user", "aud": "secureconnect-api",
        "iss": "secureconnect-auth", "sub": ADA.id, "iat": START_S, "nbf": START_S, "exp": START_S + 900, "sid": SESSION,
        "typ": "access",
    }  # fmt: skip


def test_tokens_are_not_interchangeable() -> None:
    tokens, refresh, access = made()
    refused(tokens, refresh.text)
    assert tokens.read_refresh(access) is None
    assert tokens.read_refresh(refresh.text) == refresh


def test_a_jwt_of_another_type_is_no_access_token() -> None:
    tokens = made()[0]
    refused(tokens, forged(lambda claims: claims.update(typ="refresh")))
    refused(tokens, forged(lambda claims: claims.pop("typ")))


def test_a_token_lives_to_its_last_second_and_no_longer() -> None:
    clock = FixedClock()
    tokens, _, access = made(clock)
    clock.advance(899.999)
    assert tokens.verify(access).user == ADA.id
    clock.advance(0.001)
    refused(tokens, access, "TOKEN_EXPIRED")
    refused(Tokens(SECRET, clock), access, "TOKEN_EXPIRED")  # also where it was never seen before


def test_a_clock_that_jumps_back_a_little_is_forgiven_and_a_lot_means_refresh() -> None:
    clock = FixedClock()
    access = made()[2]
    clock.advance(-300)
    assert Tokens(SECRET, clock).verify(access).user == ADA.id
    clock.advance(-1)
    refused(Tokens(SECRET, clock), access, "TOKEN_EXPIRED")


@pytest.mark.parametrize(
    "change",
    [
        lambda claims: claims.update(aud="another-api"),
        lambda claims: claims.update(aud=["secureconnect-api"]),
        lambda claims: claims.update(iss="somebody"),
        lambda claims: claims.update(sub="somebody"),
        lambda claims: claims.update(exp="never"),
        lambda claims: claims.update(exp=None),
        lambda claims: claims.pop("aud"),
        lambda claims: claims.pop("iss"),
        lambda claims: claims.pop("exp"),
        lambda claims: claims.pop("sid"),
    ],
)  # fmt: skip
def test_wrong_or_missing_claims_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    tokens = made()[0]
    assert tokens.verify(forged(lambda claims: None)).user == ADA.id  # the forger's tool works
    refused(tokens, forged(change))


@pytest.mark.parametrize("alg", ["HS384", "HS512"])
def test_another_algorithm_is_refused_even_with_our_key(alg: str) -> None:
    refused(made()[0], forged(lambda claims: None, alg=alg))


def test_another_key_is_refused() -> None:
    refused(made()[0], forged(lambda claims: None, key=OctKey.import_key(b"another secret that is 32 bytes long")))


@pytest.mark.parametrize("header", STRANGE_HEADERS)
def test_a_stranger_header_is_refused_and_never_a_crash(header: object) -> None:
    tokens, _, access = made()
    _, body, signature = access.split(".")
    for ending in ("", signature):
        refused(tokens, f"{b64(header)}.{body}.{ending}")


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é.é.é", "\ud800", "x" * 5000, "[" * 400 + "..", "null.null.null"])
def test_what_is_no_token_is_refused(text: str) -> None:
    refused(made()[0], text)
    assert made()[0].read_refresh(text) is None


def test_deep_nesting_in_a_header_is_refused() -> None:
    header = base64.urlsafe_b64encode(b"[" * 380).decode()
    refused(made()[0], f"{header}.e30.e30")


@given(st.data())
def test_a_damaged_token_is_refused(data: st.DataObject) -> None:
    tokens, refresh, access = made()
    for text in (access, refresh.text):
        end = len(text) if text is refresh.text else text.rindex(".")  # the last signature character has unused bits
        place = data.draw(st.integers(0, end - 1))
        char = data.draw(st.characters(codec="utf-8", exclude_characters=text[place]))
        damaged = text[:place] + char + text[place + 1 :]
        assert tokens.read_refresh(damaged) is None
        refused(tokens, damaged)


def test_a_verified_token_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, _, access = made()
    identity = tokens.verify(access)
    monkeypatch.setattr(jws, "deserialize_compact", lambda *args, **options: pytest.fail("verified again"))
    assert tokens.verify(access) is identity


def test_the_memory_of_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 3)
    tokens = made()[0]
    for number in range(10):
        tokens.verify(tokens.access(ADA, tokens.first_refresh(SESSION, bytes([number]) * 32), START_US))
    assert len(tokens._remembered) == 3


def test_a_refused_token_is_not_remembered() -> None:
    tokens = made()[0]
    refused(tokens, forged(lambda claims: claims.update(aud="another-api")))
    assert not tokens._remembered


def test_a_replacement_is_the_same_for_the_same_question_only() -> None:
    tokens, refresh, _ = made()
    following = tokens.next_refresh(refresh, "a")
    assert tokens.next_refresh(refresh, "a") == following
    assert tokens.access(ADA, following, START_US) == tokens.access(ADA, following, START_US)
    others = [tokens.next_refresh(refresh, "b"), tokens.next_refresh(following, "a"), refresh]
    assert following not in others
    assert len({token.text for token in others}) == 3
    assert tokens.read_refresh(following.text) == following


def test_the_next_token_cannot_be_computed_without_the_secret() -> None:
    _, refresh, _ = made()
    stranger = Tokens(b"another secret that is 32 bytes long", FixedClock())
    assert stranger.read_refresh(refresh.text) is None
    assert stranger.next_refresh(refresh, "a").hash != made()[0].next_refresh(refresh, "a").hash


def test_a_refresh_token_names_one_session_only() -> None:
    tokens, refresh, _ = made()
    assert tokens.read_refresh(refresh.text.replace(SESSION, SESSION[:-1] + "2")) is None


def test_secrets_do_not_show_in_reprs() -> None:
    tokens, refresh, _ = made()
    assert refresh.text.split(".")[1] not in repr(refresh)
    assert repr(SECRET) not in repr(tokens)


def test_the_longest_fields_fit_into_a_token() -> None:
    tokens, refresh, _ = made()
    longest = replace(ADA, email="😀" * 255, username="😀" * 30)
    assert tokens.verify(tokens.access(longest, refresh, START_US)).email == longest.email
