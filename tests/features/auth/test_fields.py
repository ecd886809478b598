"""What names, addresses and passwords may look like."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.errors import BadRequest
from secureconnect.features.auth import fields
from secureconnect.features.auth.model import Device


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace@Example.COM ", "ada.lovelace@example.com"),
        ("o'brien+news@mail.example.co.uk", "o'brien+news@mail.example.co.uk"),
        ("jörg@bücher.example", "jörg@bücher.example"),
        ("jo\u0308rg@example.com", "jörg@example.com"),
        ("x@" + "a" * 63 + ".example", "x@" + "a" * 63 + ".example"),
    ],
)
def test_an_email_is_kept_trimmed_and_lower_cased(typed: str, kept: str) -> None:
    assert fields.email(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "ada",
        "ada@",
        "@example.com",
        "ada@example",
        "ada@@example.com",
        "ada@example..com",
        "ada@.example.com",
        "ada@example.com.",
        "ada@-example.com",
        "ada@exam ple.com",
        ".ada@example.com",
        "ada.@example.com",
        "ad..a@example.com",
        "a da@example.com",
        "ada\x00@example.com",
        "ada\u200b@example.com",
        "ada\ud800@example.com",
        '"ada"@example.com',
        "ada@example.com\nbcc:eve@example.com",
        "x" * 65 + "@example.com",
        "x@" + "a" * 64 + ".example",
        "x@" + "a." * 130 + "example",
    ],
)
def test_what_is_no_email_is_refused_by_name(typed: str) -> None:
    _refused(fields.email, typed, "email")


@pytest.mark.parametrize("typed", ["ada", "Ada_L-1.x", "чебурашка", "हिन्दी", "名前さん", "x" * 30])
def test_a_username_may_use_any_script(typed: str) -> None:
    assert fields.username(typed) == typed


@pytest.mark.parametrize(
    "typed", ["", "ab", "x" * 31, "a b c", "ada@x", "_ada", ".ada", "ad\u202ea", "ad\u200da", "ada\x07", "😀😀😀"]
)
def test_other_usernames_are_refused_by_name(typed: str) -> None:
    _refused(fields.username, typed, "username")


def test_compatibility_forms_of_a_username_are_one_name() -> None:
    assert fields.username("ﬁve") == fields.username("five") == fields.username("ｆｉｖｅ")


@pytest.mark.parametrize("typed", ["", "   ", "x" * 101, "a\nb", "a\x1bb", "a\u202eb", "a\ud800b", "a\u2028b"])
def test_display_names_without_content_or_with_controls_are_refused(typed: str) -> None:
    _refused(fields.display_name, typed, "display_name")


def test_a_display_name_keeps_spaces_and_emoji() -> None:
    assert fields.display_name(" Ada 👩‍💻 Lovelace ") == "Ada 👩‍💻 Lovelace"


@pytest.mark.parametrize("typed", ["", "1234567", "ab\x00cdefgh", "\ud800bcdefgh", "x" * 1025, "é" * 513])
def test_short_long_and_unprintable_passwords_are_refused(typed: str) -> None:
    _refused(fields.password, typed, "password")


@pytest.mark.parametrize("typed", ["12345678", "x" * 1024, "é" * 512, "  spaces  "])
def test_any_other_password_is_kept_as_it_is(typed: str) -> None:
    assert fields.password(typed) == typed == fields.presented_password(typed)


def test_a_password_is_the_same_on_keyboards_that_compose_differently() -> None:
    assert fields.password("passwo\u0308rt1") == fields.presented_password("passwört1")


@pytest.mark.parametrize("typed", ["", "x" * 1025, "\ud800bcdefgh"])
def test_no_stored_password_can_be_an_impossible_one(typed: str) -> None:
    assert fields.presented_password(typed) is None


def test_a_device_id_is_checked_and_a_user_agent_is_cleaned() -> None:
    assert fields.device(Device("", "x" * 300 + "\n", "")) == Device(None, "x" * 255, None)
    assert fields.device(Device("phone", "a\nb", "::1")) == Device("phone", "a?b", "::1")
    _refused(lambda text: fields.device(Device(text)), "a\x00", "device_id")
    _refused(lambda text: fields.device(Device(text)), "x" * 256, "device_id")


def test_a_client_refresh_id_may_be_left_out_but_not_be_anything() -> None:
    assert fields.client_refresh_id(None) is fields.client_refresh_id("") is None
    assert fields.client_refresh_id("a1") == "a1"
    _refused(fields.client_refresh_id, "x" * 129, "client_refresh_id")
    _refused(fields.client_refresh_id, "\ud800", "client_refresh_id")


@given(st.text(min_size=1, max_size=100))
def test_every_display_name_yields_a_valid_username(name: str) -> None:
    derived = fields.derived_username(name)
    assert fields.username(derived) == derived
    assert fields.username(f"{derived}.000000")


@pytest.mark.parametrize(
    ("name", "derived"), [("Ada Lovelace", "ada.lovelace"), ("Jo", "user"), ("!!!", "user"), ("A" * 50, "a" * 20)]
)
def test_usernames_are_made_from_display_names(name: str, derived: str) -> None:
    assert fields.derived_username(name) == derived


@given(st.emails())
def test_what_is_kept_of_an_email_is_kept_again(address: str) -> None:
    try:
        kept = fields.email(address)
    except BadRequest:
        return
    assert fields.email(kept) == kept
    assert kept.encode()


@given(st.text(max_size=40))
def test_any_text_is_either_kept_or_refused_by_name(text: str) -> None:
    for check, field in ((fields.email, "email"), (fields.username, "username"), (fields.password, "password")):
        try:
            kept = check(text)
        except BadRequest as error:
            assert error.details["field"] == field  # noqa: PT017 (either outcome is right)
        else:
            assert check(kept) == kept


def _refused(check: Callable[[str], object], typed: str, field: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check(typed)
    assert refusal.value.details["field"] == field
    assert refusal.value.word == "VALIDATION_ERROR"
