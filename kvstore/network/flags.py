"""The flags of ``kvstore serve``: etcd's, and a few of our own. One table, from which reading, ``--help``, the
documents and the tests come.

    meant      does here what it does in etcd; ``to`` says which field of which settings it is
    ours       the same, but etcd has no such flag
    ignored    has no meaning where there is one member: one line of warning
    refused    asks for what is not done here, unless it says what holds anyway; then it is ignored

Some are known under a second name, which begins with ``experimental-``: etcd had them under it first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from kvstore.network.dialect import DIALECTS
from kvstore.network.endpoint import Settings
from kvstore.network.flag_kinds import BOOL, COUNT, DURATION, INTEGER, TEXT, URLS, WORDS, Kind, one_of
from kvstore.network.logs import FORMATS, LEVELS, Logging
from kvstore.network.tls import VERSIONS, TLSSettings
from kvstore.options import (
    COMPACTION_MODES,
    DURABILITIES,
    LEASE_POLICIES,
    NOSPACE_POLICIES,
    BadOption,
    Options,
)

EXPERIMENTAL = "experimental-"


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag."""

    name: str
    kind: Kind
    text: str
    """What it means; of one that is refused, why."""
    to: str = ""
    """Its field: ``options.max_wals``. Empty: config.py reads it by its name."""
    default: str | None = None
    """As text; None: the field's."""
    is_ours: bool = False
    is_zero_default: bool = False
    """Whether 0 says the same as nothing."""

    def variable_of(self, name: str) -> str:
        """The environment variable that says the same as the flag under this one of its names."""
        return ("KVSTORE_" if self.is_ours else "ETCD_") + name.upper().replace("-", "_")

    @property
    def shown_default(self) -> str:
        if self.default is not None:
            return self.default
        owner, _, field = self.to.partition(".")
        return self.kind.show(_DEFAULTS[owner][field])


def _defaults(owner: Any) -> dict[str, Any]:
    return {field.name: field.default for field in fields(owner)}


SERVED = {
    "metrics": True,
    "lease_restart_policy": "renew",
    "nospace_policy": "sticky",
    "backend_batch_interval_seconds": 2.0,
}
"""Options of a store that is served, where their defaults are not the library's.

Under load a checkpoint of four times as many changes takes an eighth less CPU for each put: they share pages. It is a
server that is started again after a crash, which has at most ``backend_batch_limit`` of them to replay, as always.
"""

_DEFAULTS = {
    "options": _defaults(Options) | SERVED,
    "settings": _defaults(Settings),
    "tls": _defaults(TLSSettings),
    "logging": _defaults(Logging),
}

CLIENT_URLS = "http://localhost:2379"

MEMBER = (
    Flag("name", TEXT, "The member's name.", "options.name"),
    Flag(
        "data-dir", TEXT, "The store's directory. KVSTORE_DATA_DIR too, as of every verb.", "", "${name}.etcd"
    ),
    Flag("wal-dir", TEXT, "Directory of the log; empty: inside the data directory.", "options.wal_dir"),
    Flag(
        "listen-client-urls", URLS, "Where clients are served: http, https, unix or unixs.", "", CLIENT_URLS
    ),
    Flag("listen-client-http-urls", URLS, "JSON and metrics are served there, and gRPC alone above.", "", ""),
    Flag("listen-metrics-urls", URLS, "One more place for metrics and health.", "", ""),
    Flag(
        "advertise-client-urls", URLS, "What MemberList tells clients; empty: where they are served.", "", ""
    ),
    Flag("initial-advertise-peer-urls", URLS, "Only shown in the list of members.", "settings.peer_urls"),
    Flag("snapshot-count", COUNT, "A snapshot after this many log entries.", "options.snapshot_count"),
    Flag("max-snapshots", COUNT, "Snapshots kept; 0: all.", "options.max_snapshots"),
    Flag("max-wals", COUNT, "Log segments kept; 0: all.", "options.max_wals"),
    Flag(
        "quota-backend-bytes",
        INTEGER,
        "Live bytes above which writes are refused; 0: 2 GiB; negative: no quota.",
        "options.quota_backend_bytes",
    ),
    Flag(
        "backend-batch-interval",
        DURATION,
        "How long a write, which is in the log, may wait for its checkpoint.",
        "options.backend_batch_interval_seconds",
        is_zero_default=True,
    ),
    Flag(
        "backend-batch-limit",
        COUNT,
        "A checkpoint starts at once when this many changes wait.",
        "options.backend_batch_limit",
        is_zero_default=True,
    ),
    Flag("max-txn-ops", COUNT, "Operations in one transaction.", "options.max_txn_ops"),
    Flag("max-request-bytes", COUNT, "Size of one request.", "options.max_request_bytes"),
    Flag(
        "max-concurrent-streams",
        COUNT,
        "Calls under way on one connection; if set, also all those over JSON together.",
        "settings.max_concurrent_streams",
        is_zero_default=True,
    ),
    Flag(
        "grpc-keepalive-min-time",
        DURATION,
        "Pings of a client that come faster end its connection.",
        "settings.keepalive_min_time_seconds",
    ),
    Flag(
        "grpc-keepalive-interval",
        DURATION,
        "A client that is silent for so long is pinged; 0: never.",
        "settings.keepalive_interval_seconds",
    ),
    Flag(
        "grpc-keepalive-timeout",
        DURATION,
        "How long it has to answer; 0: for ever.",
        "settings.keepalive_timeout_seconds",
    ),
    Flag("socket-reuse-port", BOOL, "SO_REUSEPORT on listeners.", "", "false"),
    Flag("socket-reuse-address", BOOL, "SO_REUSEADDR on listeners. It is always set.", "", "false"),
    Flag(
        "heartbeat-interval", COUNT, "Milliseconds; with the next one it gives the smallest TTL.", "", "100"
    ),
    Flag("election-timeout", COUNT, "Milliseconds. The smallest TTL is about 1.5 times this.", "", "1000"),
    Flag(
        "auto-compaction-mode",
        one_of(*COMPACTION_MODES),
        "What the next one counts.",
        "options.auto_compaction_mode",
    ),
    Flag(
        "auto-compaction-retention",
        TEXT,
        "Hours (1) or a duration (10m) to keep, or how many revisions; 0: all.",
        "options.auto_compaction_retention",
    ),
    Flag(
        "compaction-batch-limit",
        COUNT,
        "Rows deleted in one commit of a compaction.",
        "options.compaction_batch_limit",
        is_zero_default=True,
    ),
    Flag(
        "compaction-sleep-interval",
        DURATION,
        "Pause between two such commits.",
        "options.compaction_sleep_interval_seconds",
        is_zero_default=True,
    ),
    Flag(
        "watch-progress-notify-interval",
        DURATION,
        "Between two notices of progress to a quiet watch.",
        "settings.progress_interval_seconds",
    ),
    Flag("enable-grpc-gateway", BOOL, "Serve JSON over HTTP.", "settings.has_gateway"),
    Flag("initial-corrupt-check", BOOL, "Verify the whole store before it is served.", "", "false"),
    Flag("unsafe-no-fsync", BOOL, "DANGER: nothing is synced; a power cut loses data.", "", "false"),
    Flag(
        "config-file", TEXT, "YAML or JSON with these names. All else that is said is then ignored.", "", ""
    ),
)

SECURITY = (
    Flag("cert-file", TEXT, "The server's certificate, with its chain.", "tls.cert_file"),
    Flag("key-file", TEXT, "Its key.", "tls.key_file"),
    Flag("trusted-ca-file", TEXT, "Clients need a certificate by one of these.", "tls.trusted_ca_file"),
    Flag("client-cert-auth", BOOL, "They need one, and its name is their user.", "tls.client_cert_auth"),
    Flag("client-crl-file", TEXT, "Revoked certificates of clients (PEM or DER).", "tls.crl_file"),
    Flag(
        "client-cert-allowed-hostname",
        WORDS,
        "Certificates of clients must be for one of these hosts.",
        "tls.allowed_hostnames",
    ),
    Flag("auto-tls", BOOL, "Make a certificate and sign it ourselves.", "tls.auto"),
    Flag("self-signed-cert-validity", COUNT, "Years for which that one is good.", "tls.auto_years"),
    Flag("cipher-suites", WORDS, "Go's names; empty: what OpenSSL thinks safe.", "tls.cipher_suites"),
    Flag("tls-min-version", one_of(*VERSIONS), "The oldest TLS spoken.", "tls.min_version"),
    Flag("tls-max-version", one_of("", *VERSIONS), "The newest; empty: any.", "tls.max_version"),
    Flag("cors", WORDS, "Origins that browsers may come from.", "settings.cors"),
    Flag("host-whitelist", WORDS, "Host names that plain HTTP is answered for.", "settings.host_whitelist"),
    Flag("auth-token", TEXT, "simple, or jwt,pub-key=…,sign-method=….", "settings.auth_token"),
    Flag("auth-token-ttl", COUNT, "Seconds a simple token lives unused.", "settings.auth_token_ttl_seconds"),
    Flag("bcrypt-cost", COUNT, "Of passwords, 4 to 31.", "settings.bcrypt_cost"),
)

LOGGING = (
    Flag("log-level", one_of(*LEVELS), "What is logged.", "logging.level"),
    Flag("log-format", one_of(*FORMATS), "json, a line each as zap's; console for people.", "logging.format"),
    Flag("log-outputs", WORDS, "stderr, stdout, or files.", "logging.outputs"),
    Flag("logger", one_of("zap", "capnslog"), "capnslog: the format is console.", "", "zap"),
    Flag("debug", BOOL, "The level is debug.", "", "false"),
    Flag(
        "metrics",
        one_of("basic", "extensive"),
        "extensive: durations of gRPC calls too.",
        "settings.metrics",
    ),
    Flag(
        "warning-apply-duration",
        DURATION,
        "A write that takes longer to be durable is logged.",
        "settings.warning_apply_seconds",
    ),
    Flag(
        "warning-unary-request-duration",
        DURATION,
        "A call that takes longer is logged.",
        "settings.warning_unary_request_seconds",
    ),
)

OURS = (
    Flag(
        "backend", TEXT, "lmdb or sqlite; an existing store knows its own.", "options.backend", is_ours=True
    ),
    Flag(
        "etcd-version",
        one_of(*DIALECTS),
        "Which etcd clients take it for.",
        "settings.dialect",
        "3.5",
        is_ours=True,
    ),
    Flag("durability", one_of(*DURABILITIES), "When a write is on disk.", "options.durability", is_ours=True),
    Flag("archive-dir", TEXT, "Released log segments move here.", "options.archive_dir", is_ours=True),
    Flag("ui", BOOL, "Serve a page to look at the store with, at /ui/.", "settings.has_ui", is_ours=True),
    Flag("ui-writes", BOOL, "The page may also put and delete.", "settings.ui_writes", is_ours=True),
    Flag(
        "backup-to",
        TEXT,
        "A path or URL: the store is backed up there as it is written.",
        "",
        "",
        is_ours=True,
    ),
    Flag("backup-keep", TEXT, "What is kept there: 48h,14d,8w; empty: all.", "", "", is_ours=True),
    Flag("backup-key-file", TEXT, "The key that it is encrypted with, in hexadecimal.", "", "", is_ours=True),
    Flag(
        "lease-restart-policy",
        one_of(*LEASE_POLICIES),
        "What a restart does to leases; etcd's renews them.",
        "options.lease_restart_policy",
        is_ours=True,
    ),
    Flag(
        "nospace-policy",
        one_of(*NOSPACE_POLICIES),
        "sticky: the alarm NOSPACE stays until it is disarmed, as etcd's does.",
        "options.nospace_policy",
        is_ours=True,
    ),
)

MEANT = (("Member", MEMBER), ("Security", SECURITY), ("Logging and metrics", LOGGING), ("Ours", OURS))
"""By chapter."""

_PEER_TLS = (
    "auto-tls cert-file key-file client-cert-file client-key-file trusted-ca-file crl-file cert-allowed-cn"
)
_TRACING = "address service-name instance-id sampling-rate"
_IGNORED_TEXT = (
    "listen-peer-urls",
    "initial-cluster-token",
    *(f"peer-{name}" for name in f"{_PEER_TLS} cert-allowed-hostname".split() if name != "auto-tls"),
    "client-cert-file",
    "client-key-file",
    "discovery-fallback",
    "snapshot-catchup-entries",
    "snapshot-catch-up-entries",
    "backend-bbolt-freelist-type",
    "corrupt-check-time",
    "compact-hash-check-time",
    *(f"distributed-tracing-{name}" for name in _TRACING.split()),
    "downgrade-check-time",
    "max-learners",
    "raft-read-timeout",
    "raft-write-timeout",
    "bootstrap-defrag-threshold-megabytes",
    "feature-gates",
    "v2-deprecation",
    "log-package-levels",
    "log-rotation-config-json",
    *(
        f"proxy-{name}"
        for name in "failure-wait refresh-interval dial-timeout write-timeout read-timeout".split()
    ),
)
_IGNORED_BOOL = (
    "initial-election-tick-advance",
    "strict-reconfig-check",
    "pre-vote",
    "peer-auto-tls",
    "peer-client-cert-auth",
    "peer-skip-client-san-verification",
    "enable-lease-checkpoint",
    "enable-lease-checkpoint-persist",
    "compact-hash-check-enabled",
    "memory-mlock",
    "enable-distributed-tracing",
    "enable-pprof",
    "enable-log-rotation",
    "txn-mode-write-with-shared-buffer",
    "stop-grpc-service-on-defrag",
    "next-cluster-version-compatible",
)
_DISCOVERY_TEXT = "token endpoints cert key cacert user password proxy srv srv-name"
_DISCOVERY_TIMES = "dial-timeout request-timeout keepalive-time keepalive-timeout"
IGNORED = (
    *(Flag(name, TEXT, "") for name in _IGNORED_TEXT),
    *(Flag(f"discovery-{name}", TEXT, "") for name in _DISCOVERY_TIMES.split()),
    *(Flag(name, BOOL, "") for name in _IGNORED_BOOL),
    *(Flag(f"discovery-{name}", BOOL, "") for name in ("insecure-transport", "insecure-skip-tls-verify")),
)

_ALONE = "there is one member, and no other to find"
REFUSED = (
    Flag("initial-cluster", TEXT, "there is one member: it must name no second one", default=""),
    Flag("initial-cluster-state", TEXT, "there is no cluster to join", default="new"),
    Flag("discovery", TEXT, _ALONE, default=""),
    *(Flag(f"discovery-{name}", TEXT, _ALONE, default="") for name in _DISCOVERY_TEXT.split()),
    Flag("proxy", TEXT, "only etcd's API v3 is served", default="off"),
    Flag("enable-v2", BOOL, "only etcd's API v3 is served", default="false"),
    Flag("enable-v2v3", TEXT, "only etcd's API v3 is served", default=""),
    Flag(
        "force-new-cluster",
        BOOL,
        "move the store in instead, which makes it a cluster of its own: kvstore import etcd",
        default="false",
    ),
)
"""``default`` is what may be said all the same."""

_EXPERIMENTAL = frozenset(
    "compaction-batch-limit compaction-sleep-interval watch-progress-notify-interval initial-corrupt-check "
    "warning-apply-duration warning-unary-request-duration snapshot-catchup-entries snapshot-catch-up-entries "
    "backend-bbolt-freelist-type enable-lease-checkpoint enable-lease-checkpoint-persist corrupt-check-time "
    "compact-hash-check-enabled compact-hash-check-time memory-mlock enable-distributed-tracing downgrade-check-time "
    "max-learners bootstrap-defrag-threshold-megabytes peer-skip-client-san-verification enable-v2v3 "
    "txn-mode-write-with-shared-buffer stop-grpc-service-on-defrag".split()
) | {f"distributed-tracing-{name}" for name in _TRACING.split()}
_FORMER = {"log-output": "log-outputs"}


def _named() -> Iterator[tuple[str, Flag]]:
    for flag in (*(flag for _, flags in MEANT for flag in flags), *IGNORED, *REFUSED):
        yield flag.name, flag
        if flag.name in _EXPERIMENTAL:
            yield EXPERIMENTAL + flag.name, flag
    for flag in (Flag("help", BOOL, ""), Flag("version", BOOL, "")):
        yield flag.name, flag


FLAGS = dict(_named())
FLAGS |= {former: FLAGS[name] for former, name in _FORMER.items()}
"""Every flag by each of its names."""


def flag_called(name: str) -> Flag:
    """The flag of this name. Raises ``BadOption`` with the nearest one."""
    flag = FLAGS.get(name)
    if flag is None:
        near = get_close_matches(name, FLAGS, 1)
        meant = f"; did you mean --{near[0]}?" if near else ""
        raise BadOption(f"there is no flag --{name:.100}{meant} (kvstore serve --help lists them)")
    return flag


def check_allowed(flag: Flag, value: Any) -> None:
    """Raise ``BadOption`` where a flag asks for what is not done here."""
    assert flag.default is not None
    harmless = flag.kind.parse(flag.default)
    if flag.name == "initial-cluster":
        is_harmless = len({member.partition("=")[0] for member in value.split(",")}) == 1
    else:
        is_harmless = value == harmless
    if not is_harmless:
        raise BadOption(f"--{flag.name}={flag.kind.show(value):.100} is refused: {flag.text}")
