"""What ``kvstore serve`` was told, from wherever it was told.

    --config-file F    flags and environment are then ignored, as by etcd
    flag               --name=value, --name value; a boolean alone is true; one dash is as good as two
    environment        ETCD_NAME, or KVSTORE_NAME for what etcd has not
    default            of the field that the flag sets (flags.py), or of ``kvstore serve`` below

The result is typed, complete and checked: whatever is wrong is a ``BadOption`` that names the flag, before anything is
opened. ``remarks`` are for the log, once there is one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvstore.errors import MissingDependency
from kvstore.network.addresses import Listener, Serves, listener, parse_urls
from kvstore.network.dialect import DIALECTS
from kvstore.network.endpoint import Settings
from kvstore.network.flag_kinds import BOOL
from kvstore.network.flags import (
    CLIENT_URLS,
    FLAGS,
    IGNORED,
    REFUSED,
    SERVED,
    Flag,
    check_allowed,
    flag_called,
)
from kvstore.network.logs import Logging
from kvstore.network.tls import TLSSettings
from kvstore.options import BadOption, Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How a store is opened and served."""

    data_dir: str
    options: Options
    settings: Settings
    listeners: tuple[Listener, ...]
    tls: TLSSettings
    logging: Logging
    verify_first: bool = False
    """Look through every byte before serving."""
    reuse_port: bool = False
    is_backend_given: bool = False
    """Else the one whose files are there counts."""
    backup_to: str = ""
    backup_keep: str = ""
    backup_key_file: str = ""
    remarks: tuple[str, ...] = ()
    """What to warn of."""


@dataclass(slots=True)
class Given:
    """What was said: values by the names of flags."""

    values: dict[str, Any]
    remarks: list[str]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, otherwise: Any = None) -> Any:
        return self.values.get(name, otherwise)


def load(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration of a process. Raises ``BadOption``; ``OSError`` where its file cannot be read."""
    return config_of(read(arguments, environ), environ)


# --- reading ------------------------------------------------------------------------------


def read(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Given:
    """What flags and environment say, or the file that they name."""
    given = Given(_flags_in(arguments), [])
    if "help" in given or "version" in given:
        return given
    file = given.get("config-file") or environ.get("ETCD_CONFIG_FILE", "")
    if file:
        given.remarks.append(f"{file} is the configuration: other flags and the environment are ignored")
        given.values = {"config-file": file, **_flags_of_file(file)}
    else:
        _add_environment(given, environ)
    _drop_ignored(given)
    return given


def _flags_in(arguments: Sequence[str]) -> dict[str, Any]:
    """Flags of a command line; of one that is repeated, the last."""
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.lstrip("-").partition("=")
        dashes = len(argument) - len(argument.lstrip("-"))
        if dashes not in (1, 2) or not name:
            raise BadOption(f"{argument!r:.100} is not a flag; a boolean takes its value as --flag=false")
        flag = flag_called("help" if name == "h" else name)
        if not equals:
            if flag.kind is BOOL:
                text = "true"
            elif rest:
                text = rest.pop(0)
            else:
                raise BadOption(f"--{name} needs a value")
        values[flag.name] = _parsed(flag, text, f"--{name}")
    return values


def _parsed(flag: Flag, text: str, where: str) -> Any:
    try:
        return flag.kind.parse(text)
    except ValueError as error:
        reason = str(error) if isinstance(error, BadOption) else f"it is not a {flag.kind.name}"
        raise BadOption(f"invalid value {text!r:.100} for {where}: {reason}") from None


def _add_environment(given: Given, environ: Mapping[str, str]) -> None:
    """What variables say where no flag does. One that is empty says nothing."""
    known = set()
    for name, flag in FLAGS.items():
        if flag.name in ("help", "version"):
            continue
        known.add(variable := flag.variable_of(name))
        text = environ.get(variable, "")
        if text and flag.name not in given:
            given.values[flag.name] = _parsed(flag, text, variable)
    strange = sorted(name for name in environ if name.startswith("ETCD_") and name not in known)
    if strange:
        given.remarks.append(f"no flag has a name for these variables: {', '.join(strange)}")


_SECTIONS = {
    "client-transport-security": "",
    "peer-transport-security": "peer-",
    "discovery-config": "discovery-",
}
"""Parts of a file whose names stand for flags with that before them."""
_NAMES_IN_FILE = {
    "allowed-hostname": "client-cert-allowed-hostname",
    "peer-allowed-hostname": "peer-cert-allowed-hostname",
    "peer-allowed-cn": "peer-cert-allowed-cn",
    "skip-client-san-verification": "peer-skip-client-san-verification",
    "peer-skip-client-san-verification": "peer-skip-client-san-verification",
    "reuse-port": "socket-reuse-port",
    "reuse-address": "socket-reuse-address",
}


def _flags_of_file(file: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in _named_in(file):
        flag = flag_called(name)
        if value is not None and name != "config-file":
            values[flag.name] = _parsed(flag, flag.kind.as_text(value), f"{name} in {file}")
    return values


def _named_in(file: str) -> list[tuple[str, Any]]:
    """(flag, value) of everything in a file, its sections taken apart."""
    content = _content(file)
    found: list[tuple[str, Any]] = []
    for name, value in content.items():
        if isinstance(value, dict):
            prefix = _SECTIONS.get(name, "")
            pairs = [(prefix + str(inner), each) for inner, each in value.items()]
        else:
            pairs = [(str(name), value)]
        found += [(_NAMES_IN_FILE.get(each, each), inner) for each, inner in pairs]
    return found


def _content(file: str) -> dict[Any, Any]:
    with open(file, encoding="utf-8") as stream:
        text = stream.read()
    content = _as_json(text)
    if content is None:
        try:
            import yaml
        except ImportError as error:
            raise MissingDependency("a configuration in YAML needs a package: pip install PyYAML") from error
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BadOption(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadOption(f"{file} must map names of flags to values")
    return content


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _drop_ignored(given: Given) -> None:
    """Leave out what has no meaning here, and say so, once. Raises ``BadOption`` for what is refused."""
    refused = {flag.name for flag in REFUSED}
    nothing = {flag.name for flag in IGNORED} | refused
    for name in refused & given.values.keys():
        check_allowed(FLAGS[name], given.get(name))
    ignored = sorted(nothing & given.values.keys())
    if ignored:
        given.remarks.append(f"of no meaning with one member: {', '.join(f'--{name}' for name in ignored)}")
    given.values = {name: value for name, value in given.values.items() if name not in nothing}


# --- making sense of it -------------------------------------------------------------------


def config_of(given: Given, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration that was given. Raises ``BadOption``."""
    fields: dict[str, dict[str, Any]] = {"options": {}, "settings": {}, "tls": {}, "logging": {}}
    for name, value in given.values.items():
        flag = FLAGS[name]
        owner, _, field = flag.to.partition(".")
        if field and not (flag.is_zero_default and value == 0):
            fields[owner][field] = value
    environ = {} if "config-file" in given else environ
    served = {f"KVSTORE_{name.upper()}": str(value) for name, value in SERVED.items()}
    options = Options.load(fields["options"] | _derived_options(given), served | {**environ})
    listeners = _listeners(given)
    tls = TLSSettings(**fields["tls"])
    _check_tls(listeners, tls)
    if tls.is_complete and not any(each.is_tls for each in listeners):
        given.remarks.append("certificates are not used: no URL begins with https or unixs")
    return Config(
        data_dir=given.get("data-dir") or environ.get("KVSTORE_DATA_DIR") or f"{options.name}.etcd",
        options=options,
        settings=_settings(fields["settings"], options, given.get("advertise-client-urls", ())),
        listeners=listeners,
        tls=tls,
        logging=Logging(**fields["logging"] | _derived_logging(given)),
        verify_first=given.get("initial-corrupt-check", False),
        reuse_port=given.get("socket-reuse-port", False),
        is_backend_given="backend" in given,
        backup_to=given.get("backup-to", ""),
        backup_keep=given.get("backup-keep", ""),
        backup_key_file=given.get("backup-key-file", ""),
        remarks=tuple(given.remarks),
    )


def _derived_options(given: Given) -> dict[str, Any]:
    derived: dict[str, Any] = {}
    if "heartbeat-interval" in given or "election-timeout" in given:
        heartbeat, election = given.get("heartbeat-interval", 100), given.get("election-timeout", 1000)
        derived["lease_min_ttl_seconds"] = smallest_ttl(heartbeat, election)
    if given.get("unsafe-no-fsync"):
        given.remarks.append("DANGER: --unsafe-no-fsync: a power cut loses what was written last")
        derived["durability"] = "off"
    return derived


ELECTION_MS_MAX = 50_000


def smallest_ttl(heartbeat_ms: int, election_ms: int) -> int:
    """The smallest TTL of a lease, in seconds, that etcd allows with these two."""
    if not heartbeat_ms > 0 or not 5 * heartbeat_ms <= election_ms:
        raise BadOption(
            f"--election-timeout ({election_ms} ms) must be at least 5 times --heartbeat-interval "
            f"({heartbeat_ms} ms), and that more than 0"
        )
    if election_ms > ELECTION_MS_MAX:
        raise BadOption(f"--election-timeout ({election_ms} ms) must be at most {ELECTION_MS_MAX} ms")
    return math.ceil(3 * (election_ms // heartbeat_ms) // 2 * heartbeat_ms / 1000)


def _derived_logging(given: Given) -> dict[str, Any]:
    derived: dict[str, Any] = {}
    if given.get("debug"):
        derived["level"] = "debug"
    if given.get("logger") == "capnslog" and "log-format" not in given:
        derived["format"] = "console"
    return derived


PROGRESS_SECONDS_MIN = 0.1


def _settings(fields: dict[str, Any], options: Options, advertised: tuple[str, ...]) -> Settings:
    progress = fields.get("progress_interval_seconds", options.watch_progress_notify_interval_seconds)
    return Settings(
        **fields
        | {
            "dialect": DIALECTS[fields.get("dialect", "3.5")],
            "name": options.name,
            "max_request_bytes": options.max_request_bytes,
            "advertised_urls": advertised,
            "progress_interval_seconds": max(progress, PROGRESS_SECONDS_MIN),
        }
    )


def _listeners(given: Given) -> tuple[Listener, ...]:
    http = given.get("listen-client-http-urls", ())
    clients = given.get("listen-client-urls") or parse_urls(CLIENT_URLS)
    metrics = given.get("listen-metrics-urls", ())
    of_clients = Serves.GRPC if http else Serves.ALL
    found = [(url, of_clients) for url in clients]
    found += [(url, Serves.HTTP) for url in http] + [(url, Serves.METRICS) for url in metrics]
    return tuple(listener(url, serves) for url, serves in found)


def _check_tls(listeners: Sequence[Listener], tls: TLSSettings) -> None:
    for each in listeners:
        if each.is_tls and not tls.is_complete:
            raise BadOption(f"{each.url} needs --cert-file and --key-file, or --auto-tls")
