"""What ``kvstore serve`` is told: flags, environment and files, meant, ignored and refused as etcd's are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kvstore.network import flags
from kvstore.network.addresses import Serves
from kvstore.network.config import Config, load, read, smallest_ttl
from kvstore.network.dialect import V3_4, V3_5
from kvstore.network.flags import EXPERIMENTAL, FLAGS, IGNORED, MEANT, REFUSED, Flag
from kvstore.options import BadOption
from tests.network.etcd_flags import OF_ETCD


def told(*arguments: str, **environ: str) -> Config:
    return load(arguments, environ)


def field(config: Config, path: str) -> Any:
    owner, _, name = path.partition(".")
    return getattr(getattr(config, owner), name)


# --- values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["--max-wals=7"], "options.max_wals", 7),
        (["--max-wals", "7"], "options.max_wals", 7),
        (["-max-wals", "7"], "options.max_wals", 7),
        (["--max-wals=7", "--max-wals=8"], "options.max_wals", 8),
        (["--quota-backend-bytes=0x1000"], "options.quota_backend_bytes", 4096),
        (["--quota-backend-bytes=0100"], "options.quota_backend_bytes", 64),
        (["--quota-backend-bytes=-1"], "options.quota_backend_bytes", -1),
        (["--quota-backend-bytes=8_589_934_592"], "options.quota_backend_bytes", 8 << 30),
        (["--backend-batch-interval=250ms"], "options.backend_batch_interval_seconds", 0.25),
        (["--backend-batch-interval=1m0.5s"], "options.backend_batch_interval_seconds", 60.5),
        (["--backend-batch-interval=+2000000µs"], "options.backend_batch_interval_seconds", 2.0),
        (["--backend-batch-interval=0"], "options.backend_batch_interval_seconds", 2.0),
        (["--backend-batch-limit=0"], "options.backend_batch_limit", 10_000),
        (["--auto-compaction-retention=5m"], "options.auto_compaction_retention", "5m"),
        (["--auto-compaction-retention", "1"], "options.auto_compaction_retention", "1"),
        (["--experimental-compaction-batch-limit=10"], "options.compaction_batch_limit", 10),
        (["--experimental-watch-progress-notify-interval=5s"], "settings.progress_interval_seconds", 5.0),
        (["--watch-progress-notify-interval=1ms"], "settings.progress_interval_seconds", 0.1),
        (["--grpc-keepalive-interval=0"], "settings.keepalive_interval_seconds", 0.0),
        (["--cors=http://a, http://b,http://a"], "settings.cors", ("http://a", "http://b")),
        (["--enable-grpc-gateway=F"], "settings.has_gateway", False),
        (["--name", "--odd"], "settings.name", "--odd"),
        (["--max-request-bytes=100"], "settings.max_request_bytes", 100),
        (["--max-request-bytes=100"], "options.max_request_bytes", 100),
        (["--etcd-version", "3.4"], "settings.dialect", V3_4),
        ([], "settings.dialect", V3_5),
        (["--unsafe-no-fsync"], "options.durability", "off"),
        (["--debug"], "logging.level", "debug"),
        (["--logger=capnslog"], "logging.format", "console"),
        (["--logger=capnslog", "--log-format=json"], "logging.format", "json"),
        (["--log-outputs=stderr,/tmp/x"], "logging.outputs", ("stderr", "/tmp/x")),
        (["--heartbeat-interval=50", "--election-timeout=500"], "options.lease_min_ttl_seconds", 1),
    ],
)
def test_a_flag_sets_its_field(arguments: list[str], path: str, value: Any) -> None:
    """Each way to write a flag, and each kind of value, arrives typed."""
    assert field(told(*arguments), path) == value


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_booleans_are_go_s(text: str) -> None:
    """What Go takes for true is true, and its counterpart false; a boolean alone is true."""
    opposite = {"1": "0", "t": "f", "T": "F", "TRUE": "FALSE", "true": "false", "True": "False"}[text]
    assert told(f"--initial-corrupt-check={text}").verify_first is True
    assert told(f"--initial-corrupt-check={opposite}").verify_first is False
    assert told("--initial-corrupt-check").verify_first is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-wals=x"], "invalid value 'x' for --max-wals: it is not a number"),
        (["--max-wals=-1"], "must not be negative"),
        (["--max-wals"], "--max-wals needs a value"),
        (["--initial-corrupt-check=yes"], "a boolean is true or false"),
        (["--initial-corrupt-check", "false"], "'false' is not a flag"),
        (["--grpc-keepalive-interval=5"], "'5' is not a duration like"),
        (["--grpc-keepalive-interval=-5s"], "'-5s' is not a duration like"),
        (["serve"], "'serve' is not a flag"),
        (["--"], "'--' is not a flag"),
        (["---name=x"], "'---name=x' is not a flag"),
        (["--listen-client-urls=tcp://127.0.0.1:1"], "URL scheme must be http, https, unix, or unixs"),
        (["--listen-client-urls=http://127.0.0.1"], 'does not have the form "host:port"'),
        (["--listen-client-urls=http://127.0.0.1:x"], "is not a URL"),
        (["--listen-client-urls=http://127.0.0.1:1/x"], "URL must not contain a path"),
        (["--listen-client-urls=http://db.example:1"], "expected an IP address or localhost"),
        (["--listen-client-urls=unix://"], "must name a socket"),
        (["--listen-client-urls=https://127.0.0.1:1"], "needs --cert-file and --key-file, or --auto-tls"),
        (["--cert-file=x"], "--cert-file and --key-file need each other"),
        (["--client-cert-auth"], "--client-cert-auth needs --trusted-ca-file"),
        (["--client-crl-file=x"], "with --trusted-ca-file only"),
        (["--tls-min-version=TLS1.1"], "must be TLS1.2 or TLS1.3"),
        (["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"], "is below TLS1.3"),
        (["--tls-min-version=TLS1.3", "--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA"], "only TLS 1.3"),
        (["--election-timeout=400"], "at least 5 times"),
        (["--election-timeout=60000"], "at most 50000 ms"),
        (["--heartbeat-interval=0"], "more than 0"),
        (["--log-level=loud"], "invalid value 'loud' for --log-level"),
        (["--max-txn-ops=0"], "max_txn_ops must be between"),
        (["--auto-compaction-mode=daily"], "invalid value 'daily'"),
        (["--etcd-version=3.3"], "must be 3.4, 3.5 or 3.6"),
    ],
)
def test_a_wrong_value_is_refused_by_name(arguments: list[str], said: str) -> None:
    """What cannot be meant is an error that says which flag, and what would be right."""
    with pytest.raises(BadOption) as caught:
        told(*arguments)
    assert said in str(caught.value)


def test_an_unknown_flag_names_the_nearest() -> None:
    """A misspelt flag is refused: what it was to set would keep its default, and nobody would know."""
    with pytest.raises(BadOption, match=r"--qouta-backend-bytes; did you mean --quota-backend-bytes\?"):
        told("--qouta-backend-bytes=1")
    with pytest.raises(BadOption, match="there is no flag --zzz "):
        told("--zzz")


# --- where it is said ----------------------------------------------------------------------


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    """Precedence: flag, ETCD_* (KVSTORE_* for what is ours), default. An empty variable says nothing."""
    assert told("--max-wals=7", ETCD_MAX_WALS="8").options.max_wals == 7
    assert told(ETCD_MAX_WALS="8", KVSTORE_MAX_WALS="9").options.max_wals == 8
    assert told(KVSTORE_MAX_WALS="9").options.max_wals == 9
    assert told(ETCD_MAX_WALS="").options.max_wals == 5
    assert told(ETCD_EXPERIMENTAL_COMPACTION_BATCH_LIMIT="3").options.compaction_batch_limit == 3
    assert told(KVSTORE_ETCD_VERSION="3.4").settings.dialect is V3_4
    assert told(KVSTORE_WATCH_BUFFER="1000").options.watch_buffer == 1000


def test_a_store_that_is_served_behaves_as_etcd_does() -> None:
    """Unless it is told otherwise: leases begin anew with a restart, and the alarm NOSPACE stays."""
    assert told().options.lease_restart_policy == "renew"
    assert told().options.nospace_policy == "sticky"
    assert told().options.backend_batch_interval_seconds == 2.0
    assert told(KVSTORE_BACKEND_BATCH_INTERVAL="1s").options.backend_batch_interval_seconds == 1.0
    assert told(KVSTORE_BACKEND_BATCH_INTERVAL_SECONDS="3").options.backend_batch_interval_seconds == 3.0
    assert told("--nospace-policy=heals", KVSTORE_NOSPACE_POLICY="sticky").options.nospace_policy == "heals"
    assert told(KVSTORE_LEASE_RESTART_POLICY="pause").options.lease_restart_policy == "pause"


def test_a_wrong_variable_is_refused_and_a_strange_one_told() -> None:
    """The error names the variable. ETCD_ variables without a flag are told, as by etcd, and do no harm."""
    with pytest.raises(BadOption, match="invalid value 'x' for ETCD_MAX_WALS"):
        told(ETCD_MAX_WALS="x")
    assert told(ETCD_VERSION="3.5.1", ETCD_HOME="/x").remarks == (
        "no flag has a name for these variables: ETCD_HOME, ETCD_VERSION",
    )


def test_the_data_directory_is_where_etcd_s_or_ours_would_be() -> None:
    """By flag, ETCD_DATA_DIR, KVSTORE_DATA_DIR (as of every verb), else named for the member."""
    assert told("--data-dir=a", ETCD_DATA_DIR="b").data_dir == "a"
    assert told(ETCD_DATA_DIR="b", KVSTORE_DATA_DIR="c").data_dir == "b"
    assert told(KVSTORE_DATA_DIR="c").data_dir == "c"
    assert told("--name=m1").data_dir == "m1.etcd"


YAML = """
# as etcd's own sample has it
name: m2
data-dir: /var/lib/x
snapshot-count: 5000
quota-backend-bytes: 0
listen-client-urls: https://127.0.0.1:0,unix://x.sock
heartbeat-interval: 100
grpc-keepalive-interval: 60000000000
backend-batch-interval: 200ms
auto-compaction-retention: 1
cors:
initial-cluster-state: 'new'
strict-reconfig-check: false
client-transport-security:
  cert-file: c
  key-file: k
  client-cert-auth: true
  trusted-ca-file: ca
  allowed-hostname: [a.example, b.example]
peer-transport-security:
  cert-file: p
  allowed-cn: [x]
log-outputs: [stderr]
socket-options:
  reuse-port: true
"""


def test_a_file_replaces_flags_and_environment(tmp_path: Path) -> None:
    """YAML in etcd's shape, its sections and bare nanoseconds too; everything else that was said is ignored."""
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    file = tmp_path / "etcd.conf.yml"
    file.write_text(YAML)
    config = told("--name=m9", "--config-file", str(file), ETCD_MAX_WALS="8", KVSTORE_DATA_DIR="/else")
    assert (config.options.name, config.data_dir) == ("m2", "/var/lib/x")
    assert (config.options.max_wals, config.options.snapshot_count) == (5, 5000)
    assert config.settings.keepalive_interval_seconds == 60.0
    assert config.options.backend_batch_interval_seconds == 0.2
    assert config.options.auto_compaction_retention == "1"
    assert config.settings.cors == ("*",)
    assert config.tls.client_cert_auth
    assert config.tls.allowed_hostnames == ("a.example", "b.example")
    assert [listener.url for listener in config.listeners] == ["https://127.0.0.1:0", "unix://x.sock"]
    assert config.reuse_port
    named, ignored = config.remarks
    assert "flags and the environment are ignored" in named
    assert "--peer-cert-allowed-cn, --peer-cert-file, --strict-reconfig-check" in ignored
    assert told(ETCD_CONFIG_FILE=str(file)).options.name == "m2"


def test_a_file_may_be_json(tmp_path: Path) -> None:
    """JSON needs no package."""
    file = tmp_path / "etcd.json"
    file.write_text(json.dumps({"name": "m3", "max-txn-ops": 9, "etcd-version": "3.4", "debug": True}))
    config = told(f"--config-file={file}")
    assert (config.options.name, config.options.max_txn_ops, config.settings.dialect) == ("m3", 9, V3_4)
    assert config.logging.level == "debug"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "must map names of flags"),
        ('{"qouta-backend-bytes": 1}', "did you mean --quota-backend-bytes"),
        ('{"max-wals": {"a": 1}}', "there is no flag --a"),
        ('{"max-wals": -1}', "invalid value '-1' for max-wals in"),
        ('{"max-wals": [{"a": 1}]}', "a number was expected"),
        ('{"enable-v2": true}', "is refused"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """The error names the flag and the file; a name that means nothing is not passed over."""
    file = tmp_path / "f.json"
    file.write_text(text)
    with pytest.raises(BadOption) as caught:
        told(f"--config-file={file}")
    assert said in str(caught.value)


# --- ignored and refused --------------------------------------------------------------------


def test_what_has_no_meaning_is_ignored_with_one_line() -> None:
    """Flags of a cluster of many change nothing, whatever their value; one remark names them all."""
    arguments = ["--listen-peer-urls=http://x:1", "--pre-vote", "--experimental-memory-mlock=true"]
    config = told(*arguments, ETCD_INITIAL_CLUSTER="default=http://localhost:2380")
    assert config.remarks == (
        "of no meaning with one member: --initial-cluster, --listen-peer-urls, --memory-mlock, --pre-vote",
    )
    assert config.options == told().options


@pytest.mark.parametrize(
    "argument",
    [
        "--initial-cluster=a=http://x:1,b=http://y:1",
        "--initial-cluster-state=existing",
        "--discovery=https://discovery.etcd.io/x",
        "--discovery-srv=example.com",
        "--discovery-token=x",
        "--proxy=on",
        "--enable-v2",
        "--enable-v2=true",
        "--experimental-enable-v2v3=/v2",
        "--force-new-cluster",
    ],
)
def test_what_is_not_done_here_is_refused(argument: str) -> None:
    """Who asks for another member, or API v2, is told no, with the reason."""
    with pytest.raises(BadOption, match="is refused: "):
        told(argument)


def test_what_is_refused_may_say_what_holds_anyway() -> None:
    """The harmless value of each is accepted, and ignored."""
    for flag in REFUSED:
        assert told(f"--{flag.name}={flag.default}").options == told().options
    assert told("--initial-cluster=a=http://x:1,a=http://y:1").remarks


# --- listeners ------------------------------------------------------------------------------


def test_listeners_say_what_is_served_where() -> None:
    """A list for HTTP alone takes HTTP from the list for clients; IPv6, port 0 and sockets are understood."""
    client, http, metrics = told(
        "--listen-client-urls=http://[::1]:0",
        "--listen-client-http-urls=http://localhost:8080",
        "--listen-metrics-urls=unix:///run/m.sock",
    ).listeners
    assert (client.host, client.port, client.serves) == ("::1", 0, Serves.GRPC)
    assert client.at(4242) == "http://[::1]:4242"
    assert (http.host, http.port, http.serves) == ("localhost", 8080, Serves.HTTP)
    assert (metrics.path, metrics.serves) == ("/run/m.sock", Serves.METRICS)
    (alone,) = told().listeners
    assert (alone.url, alone.serves) == ("http://localhost:2379", Serves.ALL)


def test_certificates_that_nobody_sees_are_told() -> None:
    """A URL with http beside a certificate is accepted, as by etcd, and is perhaps not what was meant."""
    (remark,) = told("--cert-file=c", "--key-file=k").remarks
    assert "certificates are not used" in remark
    assert told("--cert-file=c", "--key-file=k", "--listen-client-urls=https://127.0.0.1:1").remarks == ()


@pytest.mark.parametrize(
    ("heartbeat_ms", "election_ms", "seconds"), [(100, 1000, 2), (50, 500, 1), (100, 500, 1), (500, 5000, 8)]
)
def test_the_smallest_ttl_is_etcd_s(heartbeat_ms: int, election_ms: int, seconds: int) -> None:
    """One and a half elections, in heartbeats, rounded up to seconds."""
    assert smallest_ttl(heartbeat_ms, election_ms) == seconds


# --- the table ------------------------------------------------------------------------------


def every_meant_flag() -> list[Flag]:
    return [flag for _, chapter in MEANT for flag in chapter]


def test_the_default_of_every_flag_says_what_nothing_says() -> None:
    """What --help shows as the default, said aloud, changes nothing."""
    said_elsewhere = {"data-dir", "advertise-client-urls"}
    for flag in every_meant_flag():
        if flag.name not in said_elsewhere:
            assert told(f"--{flag.name}={flag.shown_default}").settings == told().settings, flag.name
            assert told(f"--{flag.name}={flag.shown_default}").options == told().options, flag.name


def test_every_flag_stands_in_the_table_once() -> None:
    """Meant, ignored and refused do not overlap, and none has the name of another's old one."""
    names = [flag.name for flag in (*every_meant_flag(), *IGNORED, *REFUSED)]
    assert len(names) == len(set(names))
    assert not any(name.startswith(EXPERIMENTAL) for name in names)
    assert set(names) >= flags._EXPERIMENTAL


def test_every_flag_of_etcd_is_known() -> None:
    """Whatever 3.4.45, 3.5.33 or 3.6.14 takes is meant, ignored or refused; nothing is unknown."""
    assert set(OF_ETCD) - FLAGS.keys() == set()


def test_every_flag_of_an_installed_etcd_is_known() -> None:
    """``etcd --help`` names none that is not in the table."""
    if shutil.which("etcd") is None:
        pytest.skip("no etcd on PATH")
    done = subprocess.run(["etcd", "--help"], capture_output=True, text=True, check=False)
    named = {line.split()[0] for line in (done.stdout + done.stderr).splitlines() if line.startswith("  --")}
    assert len(named) > 70
    assert {name.removeprefix("--") for name in named} - FLAGS.keys() == set()


def test_help_and_version_are_asked_for_as_of_etcd() -> None:
    """-h, --help and --version are flags, and nothing else is looked at."""
    assert "help" in read(["-h"], {"ETCD_MAX_WALS": "x"})
    assert "help" in read(["--help"], {})
    assert "version" in read(["--version"], {})


def test_the_examples_of_a_service_and_a_container_are_understood(project: Path) -> None:
    """What systemd and Docker start there is a command that `kvstore serve` takes."""
    folder = project / "examples" / "serve"
    started = re.search(
        r"^ExecStart=/usr/bin/kvstore serve (.*)$", (folder / "kvstore.service").read_text(), re.M
    )
    assert started is not None
    unit = told(*started[1].split())
    assert (unit.data_dir, unit.listeners[0].path) == ("/var/lib/kvstore/data", "/run/kvstore/kv.sock")
    lines = (folder / "Dockerfile").read_text().splitlines()
    entry, more = (
        json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith(("ENTRYPOINT", "CMD"))
    )
    assert entry[:2] == ["kvstore", "serve"]
    container = told(*entry[2:], *more)
    assert (container.data_dir, container.listeners[0].port) == ("/data", 2379)
    assert container.settings.advertised_urls == ("http://127.0.0.1:2379",)
