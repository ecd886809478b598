"""What an e-mail address, user name, display name and password must look like; each function returns the form that is kept.

All raise BadRequest whose `details.field` names the field. Lengths are code points, except where bytes are said.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from secureconnect.errors import BadRequest
from secureconnect.features.auth.model import Device

EMAIL_CHARS_MAX: Final = 255
EMAIL_LOCAL_CHARS_MAX: Final = 64
"""RFC 5321 §4.5.3.1.1."""
USERNAME_CHARS_MIN: Final = 3
USERNAME_CHARS_MAX: Final = 30
PASSWORD_CHARS_MIN: Final = 8
PASSWORD_BYTES_MAX: Final = 1024
"""Enough for any passphrase, and far below what would make hashing a way to burn CPU."""
DISPLAY_NAME_CHARS_MAX: Final = 100
DEVICE_ID_CHARS_MAX: Final = 255
CLIENT_REFRESH_ID_CHARS_MAX: Final = 128
USER_AGENT_CHARS_MAX: Final = 255
DERIVED_CHARS_MAX: Final = 20
"""Of a user name made from a display name; leaves room for what makes it unique."""

_LOCAL = re.compile(r"[^\s@\"(),:;<>\[\]\\.]+(\.[^\s@\"(),:;<>\[\]\\.]+)*")
_LABEL = re.compile(r"[^\W_]([\w-]*[^\W_])?")
_BIDI_CONTROLS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that make a name read as another one (Unicode TR 36 §2.5)."""
_REFUSED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories: control characters, lone surrogates, line and paragraph separators."""


def email(text: str) -> str:
    """Trimmed and lower-cased: `local@label.label`, no quoting and no comments."""
    kept = unicodedata.normalize("NFC", text.strip().lower())
    _length("email", kept, 1, EMAIL_CHARS_MAX)
    local, _, domain = kept.rpartition("@")
    labels = domain.split(".")
    plausible = len(labels) >= 2 and all(len(label) <= 63 and _LABEL.fullmatch(label) for label in labels)
    if not plausible or not kept.isprintable() or len(local) > EMAIL_LOCAL_CHARS_MAX or not _LOCAL.fullmatch(local):
        raise wrong("email", "is not an e-mail address")
    return kept


def username(text: str) -> str:
    """Letters and digits of any script, and `_ - .`; compatibility forms are folded (NFKC), case is kept."""
    kept = unicodedata.normalize("NFKC", text.strip())
    _length("username", kept, USERNAME_CHARS_MIN, USERNAME_CHARS_MAX)
    if not _is_letter(kept[0]) or not all(_is_name_char(char) for char in kept):
        raise wrong("username", "may hold letters, digits and _ - . and begins with a letter or digit")
    return kept


def display_name(text: str) -> str:
    kept = unicodedata.normalize("NFC", text.strip())
    _length("display_name", kept, 1, DISPLAY_NAME_CHARS_MAX)
    _printable("display_name", kept)
    return kept


def password(text: str) -> str:
    """For a new password. NFC, so that every keyboard's é is the same (RFC 8265 §4.2)."""
    kept = unicodedata.normalize("NFC", text)
    if len(kept) < PASSWORD_CHARS_MIN:
        raise wrong("password", f"must have at least {PASSWORD_CHARS_MIN} characters")
    _printable("password", kept, bidi_allowed=True)
    if len(kept.encode()) > PASSWORD_BYTES_MAX:
        raise wrong("password", f"must have at most {PASSWORD_BYTES_MAX} bytes")
    return kept


def presented_password(text: str) -> str | None:
    """A password to compare, in the form of `password`; None when no stored password can be this one."""
    kept = unicodedata.normalize("NFC", text)
    try:
        return kept if 0 < len(kept.encode()) <= PASSWORD_BYTES_MAX else None
    except UnicodeEncodeError:  # a lone surrogate
        return None


def device(said: Device) -> Device:
    """What a client says of itself unasked (user agent) is cut and cleaned; only a bad `device_id` is refused."""
    if said.device_id:
        _length("device_id", said.device_id, 1, DEVICE_ID_CHARS_MAX)
        _printable("device_id", said.device_id)
    return Device(said.device_id or None, _cleaned(said.user_agent), _cleaned(said.address))


def client_refresh_id(text: str | None) -> str | None:
    """None and empty: not given."""
    if not text:
        return None
    _length("client_refresh_id", text, 1, CLIENT_REFRESH_ID_CHARS_MAX)
    _printable("client_refresh_id", text)
    return text


def derived_username(name: str) -> str:
    """A user name made from a display name (never from an e-mail, which stays private); may be taken already."""
    folded = unicodedata.normalize("NFKC", name).lower()
    spelled = "".join(char if _is_letter(char) or _is_mark(char) else "." for char in folded)
    kept = re.sub(r"\.+", ".", spelled).strip(".")[:DERIVED_CHARS_MAX].strip(".")
    return kept if len(kept) >= USERNAME_CHARS_MIN and _is_letter(kept[0]) else "user"


def wrong(field: str, reason: str) -> BadRequest:
    return BadRequest(f"{field}: {reason}", details={"field": field, "reason": reason})


def _cleaned(text: str | None) -> str | None:
    if not text:
        return None
    return "".join("?" if unicodedata.category(c) in _REFUSED else c for c in text[:USER_AGENT_CHARS_MAX])


def _length(field: str, text: str, low: int, high: int) -> None:
    if not low <= len(text) <= high:
        raise wrong(field, f"must have {low} to {high} characters")


def _printable(field: str, text: str, *, bidi_allowed: bool = False) -> None:
    for char in text:
        if unicodedata.category(char) in _REFUSED or (char in _BIDI_CONTROLS and not bidi_allowed):
            raise wrong(field, "holds a control character")


def _is_letter(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] == "L" or category == "Nd"


def _is_mark(char: str) -> bool:
    """Vowel signs and accents, which many scripts write as characters of their own."""
    return unicodedata.category(char) in {"Mn", "Mc"}


def _is_name_char(char: str) -> bool:
    return char in "_-." or _is_letter(char) or _is_mark(char)
