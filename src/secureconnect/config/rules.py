"""What holds between settings, and how a wrong one is told: its name, what is wrong with its value, an example that fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from secureconnect.config.kinds import whole
from secureconnect.config.row import PREFIX, Row

if TYPE_CHECKING:
    from secureconnect.config.settings import Settings

RATE_MAX = 1_000_000
RATE = whole(1, RATE_MAX, example=100)
SHOWN_CHARS_MAX = 60


def problem(row: Row, value: object, what: str, *, origin: str = "") -> str:
    """`PORT (environment): 'abc' is not a whole number …; for example SECURECONNECT_PORT=8080`. Secrets are not repeated."""
    shown = "the value" if row.secret != "no" else repr(value)
    if len(shown) > SHOWN_CHARS_MAX:
        shown = shown[:SHOWN_CHARS_MAX] + "…"
    where = f" ({origin})" if origin else ""
    return f"{row.name}{where}: {shown} {what}; for example {PREFIX}{row.name}={row.kind.example}"


def headline(problems: Sequence[str]) -> str:
    """The first problem, and how many more there are: an error's one line."""
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more)" if more else "")


def contradictions(settings: Settings) -> list[str]:
    """Settings that are fine alone and wrong together."""
    found = []
    if settings.is_networked and settings.secret is None:
        found.append(
            "SECRET: is absent, but with REDIS_URL or a networked SQL_URL several nodes must share one; "
            f"for example {PREFIX}SECRET=$(openssl rand -hex 32), the same on every node"
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        found.append(f"TLS_CERT: goes with TLS_KEY; for example {PREFIX}TLS_CERT=cert.pem {PREFIX}TLS_KEY=key.pem")
    apns = (settings.apns_key_file, settings.apns_key_id, settings.apns_team_id, settings.apns_topic)
    if any(a is not None for a in apns) and any(a is None for a in apns):
        found.append("APNS_KEY_FILE: goes with APNS_KEY_ID, APNS_TEAM_ID and APNS_TOPIC; set all four or none")
    if len(settings.roles) > 1 and "all" in settings.roles:
        found.append(f"ROLES: `all` stands alone; for example {PREFIX}ROLES=all")
    for less, more in (
        ("socket_ping_s", "socket_idle_s"),
        ("store_attempt_deadline_s", "store_deadline_s"),
        ("redis_attempt_deadline_s", "redis_deadline_s"),
        ("access_token_s", "refresh_token_s"),
        ("sql_pool_idle_min", "sql_pool_max"),
    ):
        if getattr(settings, less) > getattr(settings, more):
            found.append(f"{less.upper()}: is greater than {more.upper()}, and must not be")
    return found


def not_built(settings: Settings, rows: Sequence[Row]) -> list[str]:
    """Settings that count on a part of the product that is not built yet: reasons for `serve` to stop, not to ignore them."""
    return [
        f"{row.name}: not built yet: {row.help}"
        for row in rows
        if row.status == "refused" and getattr(settings, row.field) != row.default
    ]


def without_effect(settings: Settings, rows: Sequence[Row]) -> list[str]:
    """Names that were changed from their default and do nothing yet: worth one line in the log."""
    return [row.name for row in rows if row.status == "later" and getattr(settings, row.field) != row.default]
