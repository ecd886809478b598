"""Every setting, its default and its bounds: the one list (interface.md §3, failure-policy.md §1).

A name ends in its unit: `_s` seconds, `_bytes_` bytes, `_per_min` a rate, `_max` and `_min` counts. None means "not given",
and the help says what happens then. Defaults of limits and deadlines are those of failure-policy.md §1.
"""

# ruff: noqa: RUF009 - `setting` makes a dataclasses.field, which is what the rule wants and cannot see

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secureconnect.config import kinds, rules
from secureconnect.config.kinds import choice, number, path, switch, text, url, whole
from secureconnect.config.row import Row, rows_of, setting
from secureconnect.errors import ConfigError

MIB = 1 << 20
ROLES = ("auth", "chat", "calls", "storage")
_ROLE_WORDS = ("all", "gateway", *ROLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process, validated: an instance that exists is one that fits.

    Raises: ConfigError whose `details["problems"]` names each wrong setting, what is wrong with it and an example.
    """

    # Where it lives and how it is reached
    data_dir: Path = setting(Path("data"), path(example="/var/lib/secureconnect"), "Folder of everything the server keeps.")
    host: str = setting("127.0.0.1", text(example="0.0.0.0"), "Address to listen on; 0.0.0.0 or :: for all.")
    port: int = setting(8080, whole(0, 65535, example=8080), "Port to listen on; 0 picks a free one.")
    public_url: str | None = setting(
        None, url("http", "https", example="https://chat.example.org"), "What people type to reach it, where links need it.",
        status="later",
    )  # fmt: skip
    origins: tuple[str, ...] = setting(
        (), kinds.several(kinds.origin(), words="origins, separated by commas", example="https://chat.example.org"),
        "Web origins that may call it from a browser, beside its own; * for any.",
    )  # fmt: skip
    trusted_proxies: tuple[str, ...] = setting(
        (), kinds.several(kinds.network(), words="addresses or CIDR ranges, separated by commas", example="10.0.0.0/8,::1"),
        "Proxies whose X-Forwarded-For is believed.",
    )  # fmt: skip
    tls_cert: Path | None = setting(None, path(example="/etc/tls/cert.pem"), "Certificate chain (PEM).", status="refused")
    tls_key: Path | None = setting(None, path(example="/etc/tls/key.pem"), "Its private key (PEM).", status="refused")
    roles: tuple[str, ...] = setting(
        ("all",), kinds.several(choice(*_ROLE_WORDS), words=f"some of {', '.join(_ROLE_WORDS)}", example="auth,chat"),
        "Which parts of the product this process serves.", status="refused",
    )  # fmt: skip
    upstreams: tuple[str, ...] = setting(
        (), kinds.several(kinds.upstream(ROLES), words="role=URL pairs, separated by commas", example="chat=http://127.0.0.1:8081"),
        "Where the gateway role finds the others.", status="refused",
    )  # fmt: skip

    # Secrets and people
    secret: str | None = setting(
        None,
        kinds.key(),
        "Signs tokens; all nodes share it. Absent: made and kept in the data folder, mode 0600.",
        secret="whole",
    )
    access_token_s: int = setting(900, whole(10, 86_400, example=900), "Life of an access token.")
    refresh_token_s: int = setting(2_592_000, whole(60, 31_536_000, example=2_592_000), "Life of a refresh token.")
    sessions_per_user_max: int = setting(10, whole(1, 1000, example=10), "Login sessions of one user; the oldest ends first.")

    # What it stands on
    sql_url: str | None = setting(
        None, kinds.sql_url(), "Users, conversations, messages. Absent: SQLite in the data folder.", secret="url"
    )
    redis_url: str | None = setting(
        None, url("redis", "rediss", example="redis://127.0.0.1:6379/0"), "Between nodes. Absent: in memory, one node.",
        secret="url",
    )  # fmt: skip
    cassandra_url: str | None = setting(
        None, kinds.cluster_url(), "Messages at scale. Absent: they live in SQL.", secret="url", status="refused"
    )
    s3_url: str | None = setting(
        None, url("s3", example="s3://KEY:SECRET@127.0.0.1:7070/bucket?tls=off", path=True), "Blobs. Absent: on disk.",
        secret="url", status="refused",
    )  # fmt: skip
    smtp_url: str | None = setting(
        None, url("smtp", "smtp+starttls", "smtps", example="smtp+starttls://user:password@mail.example.org:587"),
        "Mail. Absent: mails are written to the data folder.", secret="url", status="refused",
    )  # fmt: skip
    fcm_credentials_file: Path | None = setting(None, path(example="fcm.json"), "FCM service account.", status="refused")
    fcm_url: str | None = setting(None, url("http", "https", example="http://127.0.0.1:9001"), "Where FCM is.", status="refused")
    apns_key_file: Path | None = setting(None, path(example="apns.p8"), "APNs signing key.", status="refused")
    apns_key_id: str | None = setting(None, text(example="ABC123DEFG"), "APNs key id.", status="refused")
    apns_team_id: str | None = setting(None, text(example="DEF123GHIJ"), "APNs team id.", status="refused")
    apns_topic: str | None = setting(None, text(example="org.example.chat"), "APNs topic: the app's bundle id.", status="refused")
    apns_url: str | None = setting(
        None, url("http", "https", example="http://127.0.0.1:9002"), "Where APNs is.", status="refused"
    )
    webpush_private_key_file: Path | None = setting(None, path(example="vapid.pem"), "VAPID key.", status="refused")
    webpush_allow_private: bool = setting(False, switch(), "Push to private addresses, for tests.", status="refused")
    ai_url: str | None = setting(
        None, url("http", "https", example="http://127.0.0.1:11434/v1"), "An OpenAI-compatible endpoint.", status="refused"
    )
    ai_key: str | None = setting(None, text(example="sk-…"), "Its key.", secret="whole", status="refused")
    ai_model: str | None = setting(None, text(example="llama3.2"), "Its model.", status="refused")
    turn_urls: tuple[str, ...] = setting(
        (), kinds.several(text(example="turn:turn.example.org:3478"), words="TURN URLs, separated by commas",
                          example="turn:turn.example.org:3478"),
        "TURN servers of calls.", status="refused",
    )  # fmt: skip
    turn_secret: str | None = setting(
        None, text(example="a shared secret"), "Shared with them.", secret="whole", status="refused"
    )
    sfu_url: str | None = setting(None, url("http", "https", example="http://127.0.0.1:8088/janus"), "An SFU.", status="refused")
    call_ring_s: float = setting(45.0, number(5, 600, example=45), "How long a call rings.", status="later")

    # Figures and logs
    metrics_token: str | None = setting(None, text(example="a long random word"), "Bearer token of /metrics.", secret="whole")
    otlp_url: str | None = setting(
        None, url("http", "https", example="http://127.0.0.1:4318"), "Traces go there.", status="refused"
    )
    log_level: str = setting("info", choice("info", "debug", "warning", "error"), "The least severe line that is written.")
    log_format: str = setting(
        "auto", choice("auto", "text", "json"), "Lines as key=value or JSON; auto: key=value on a terminal, else JSON."
    )

    # Deadlines
    request_deadline_s: float = setting(30.0, number(0.1, 600, example=30), "Any request, over HTTP or a socket.")
    stream_progress_deadline_s: float = setting(10.0, number(0.1, 600, example=10), "A stream without progress.", status="later")
    poll_grace_s: float = setting(
        5.0, number(0.1, 60, example=5), "What a long-poll may take beyond its own wait.", status="later"
    )
    store_deadline_s: float = setting(5.0, number(0.1, 60, example=5), "One store call, pool wait and retries included.")
    store_attempt_deadline_s: float = setting(1.5, number(0.05, 60, example=1.5), "One attempt of it.")
    redis_deadline_s: float = setting(1.0, number(0.05, 60, example=1), "One Redis command, retries included.")
    redis_attempt_deadline_s: float = setting(0.3, number(0.01, 60, example=0.3), "One attempt of it.")
    write_deadline_s: float = setting(10.0, number(0.1, 600, example=10), "A write to a client, without progress.")
    handshake_deadline_s: float = setting(
        10.0, number(0.1, 600, example=10), "Request head, WebSocket handshake, authentication."
    )
    socket_idle_s: float = setting(60.0, number(1, 3600, example=60), "A socket without any traffic is closed.")
    socket_ping_s: float = setting(25.0, number(0.5, 1800, example=25), "The server pings a silent socket this often.")
    close_deadline_s: float = setting(2.0, number(0.1, 60, example=2), "The WebSocket close handshake.")
    shutdown_grace_s: float = setting(30.0, number(0, 600, example=30), "Paced drain on SIGTERM; then everything is cancelled.")
    push_deadline_s: float = setting(10.0, number(0.1, 120, example=10), "One push attempt.", status="later")
    ai_reply_deadline_s: float = setting(3.0, number(0.1, 120, example=3), "Smart replies.", status="later")
    ai_deadline_s: float = setting(5.0, number(0.1, 120, example=5), "Other AI calls.", status="later")

    # Limits
    request_body_bytes_max: int = setting(MIB, whole(1024, 1 << 30, example=MIB), "Body of a request, uploads apart.")
    http_connections_max: int = setting(
        10_000, whole(1, 1_000_000, example=10_000), "HTTP connections in this process; open sockets are not among them."
    )
    sockets_max: int = setting(1000, whole(1, 1_000_000, example=1000), "Sockets of each kind in this process.")
    socket_message_bytes_max: int = setting(MIB, whole(1024, 1 << 28, example=MIB), "One message from a socket.")
    channel_queue_max: int = setting(5000, whole(1, 1_000_000, example=5000), "Messages waiting in one channel's queue.")
    channel_queues_bytes_max: int = setting(
        256 * MIB, whole(MIB, 1 << 36, example=256 * MIB), "Bytes waiting in all of them together."
    )
    outbox_messages_max: int = setting(5000, whole(1, 1_000_000, example=5000), "Messages waiting for one client.")
    outbox_bytes_max: int = setting(MIB, whole(4096, 1 << 30, example=MIB), "Bytes waiting for one client.")
    replay_entries_max: int = setting(1000, whole(0, 100_000, example=1000), "Missed entries that a subscription replays.")
    journal_bytes_max: int = setting(
        64 * MIB, whole(MIB, 1 << 40, example=64 * MIB), "Journal of accepted messages.", status="later"
    )
    send_mode: str = setting(
        "accepted",
        choice("accepted", "strict"),
        "What a send gets while a networked message store is away: kept, or 503.",
        status="later",
    )
    sql_pool_max: int = setting(25, whole(1, 1000, example=25), "Connections to a networked SQL server.")
    sql_pool_idle_min: int = setting(5, whole(0, 1000, example=5), "Of them kept open when idle.")
    sql_connection_life_s: float = setting(3600.0, number(1, 604_800, example=3600), "Life of one.")
    sql_connection_idle_s: float = setting(1800.0, number(1, 604_800, example=1800), "Idle time of one.")
    sql_waiting_max: int = setting(100, whole(1, 10_000, example=100), "Calls waiting for one.")
    sql_wait_s: float = setting(1.0, number(0.01, 60, example=1), "Wait of a request for one.")
    sql_background_wait_s: float = setting(5.0, number(0.01, 60, example=5), "Wait of background work.")
    retries_max: int = setting(3, whole(0, 20, example=3), "Retries of an idempotent operation.")
    retry_budget_percent: float = setting(10.0, number(0, 100, example=10), "Retries as a share of all calls.")
    serialization_retries_max: int = setting(8, whole(0, 100, example=8), "Re-runs of a transaction after 40001.")
    breaker_failures_max: int = setting(5, whole(1, 1000, example=5), "Failures in a row that open a breaker.")
    breaker_failure_percent: float = setting(50.0, number(1, 100, example=50), "Share of failures that opens one.")
    breaker_calls_min: int = setting(20, whole(1, 10_000, example=20), "Calls in the window that the share needs.")
    breaker_window_s: float = setting(10.0, number(1, 600, example=10), "That window.")

    # Rates: per user when authenticated, else per address (contract.md §2.14)
    rate_limits: bool = setting(True, switch(), "Whether rates are limited.")
    rate_register_per_min: int = setting(5, rules.RATE, "Registrations.")
    rate_login_per_min: int = setting(10, rules.RATE, "Logins.")
    rate_refresh_per_min: int = setting(10, rules.RATE, "Refreshes of a token.")
    rate_reset_per_min: int = setting(3, rules.RATE, "Password resets.")
    rate_account_per_min: int = setting(50, rules.RATE, "Own account.")
    rate_friends_per_min: int = setting(30, rules.RATE, "Friends.")
    rate_keys_per_min: int = setting(20, rules.RATE, "Encryption keys.")
    rate_messages_per_min: int = setting(100, rules.RATE, "Messages.")
    rate_search_per_min: int = setting(50, rules.RATE, "Searches.")
    rate_conversations_per_min: int = setting(50, rules.RATE, "Conversations.")
    rate_calls_per_min: int = setting(10, rules.RATE, "Calls.")
    rate_uploads_per_min: int = setting(20, rules.RATE, "Uploads.")
    rate_notifications_per_min: int = setting(50, rules.RATE, "Notifications.")
    rate_admin_per_min: int = setting(30, rules.RATE, "Operator's calls.")
    rate_connect_per_min: int = setting(60, rules.RATE, "New sockets.")
    rate_default_per_min: int = setting(100, rules.RATE, "Everything else.")

    def __post_init__(self) -> None:
        problems = []
        for row in ROWS:
            value = getattr(self, row.field)
            if value is None and row.default is None:
                continue
            try:
                object.__setattr__(self, row.field, row.kind.read(value))
            except ValueError as error:
                problems.append(rules.problem(row, value, str(error)))
        problems = problems or rules.contradictions(self)
        if problems:
            raise ConfigError(rules.headline(problems), details={"problems": problems})

    @property
    def rates_per_min(self) -> Mapping[str, int]:
        """Calls a minute by class."""
        return {
            "register": self.rate_register_per_min,
            "login": self.rate_login_per_min,
            "refresh": self.rate_refresh_per_min,
            "reset": self.rate_reset_per_min,
            "account": self.rate_account_per_min,
            "friends": self.rate_friends_per_min,
            "keys": self.rate_keys_per_min,
            "messages": self.rate_messages_per_min,
            "search": self.rate_search_per_min,
            "conversations": self.rate_conversations_per_min,
            "calls": self.rate_calls_per_min,
            "uploads": self.rate_uploads_per_min,
            "notifications": self.rate_notifications_per_min,
            "admin": self.rate_admin_per_min,
            "connect": self.rate_connect_per_min,
            "default": self.rate_default_per_min,
        }

    def with_rates(self, times: int) -> Settings:
        """The same, every rate so many times as high."""
        higher = {f"rate_{name}_per_min": min(times * limit, rules.RATE_MAX) for name, limit in self.rates_per_min.items()}
        return dataclasses.replace(self, **higher)  # type: ignore[arg-type]  # names of whole numbers

    @property
    def sqlite_path(self) -> Path | None:
        """Where the embedded database is; None when `sql_url` names a server."""
        if self.sql_url is None:
            return self.data_dir / "secureconnect.db"
        if self.sql_url.startswith("sqlite:///"):
            return Path(self.sql_url.removeprefix("sqlite:///"))
        return None

    @property
    def is_networked(self) -> bool:
        """Whether other nodes may share its stores, and so must share its secret."""
        return self.redis_url is not None or self.sqlite_path is None


ROWS: tuple[Row, ...] = rows_of(dataclasses.fields(Settings))
BY_NAME: dict[str, Row] = {row.name: row for row in ROWS}
