"""TLS as etcd has it: who we are, and who a client must be.

Certificates are renewed and revoked while a server runs, so every connection goes by the files as they are when it
begins: when one of them has changed, a new context is made of all of them. Files that do not fit each other (half of
them written) change nothing yet.

                        no certificate asked for    one by trusted_ca_file needed    its name is the user
    (nothing)                      x
    trusted_ca_file                                              x
    client_cert_auth too                                         x                            x
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from kvstore.network.revoked import revoked_serials
from kvstore.options import BadOption

logger = logging.getLogger("kvstore.network")

VERSIONS = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}
PROTOCOLS = ["h2", "http/1.1"]

Certificate = Mapping[str, Any]
"""What ``SSLObject.getpeercert`` gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """What a server shows of itself, and asks of its clients. Files are PEM."""

    cert_file: str = ""
    key_file: str = ""
    trusted_ca_file: str = ""
    """Clients must show a certificate signed by one of these."""
    client_cert_auth: bool = False
    """The common name of a client's certificate is its user, where users are enabled."""
    crl_file: str = ""
    """Certificates of clients that are not accepted any more; PEM or DER."""
    allowed_hostnames: tuple[str, ...] = ()
    """A client's certificate must be for one of these; empty: for any."""
    cipher_suites: tuple[str, ...] = ()
    """Of TLS 1.2, by their IANA names; empty: OpenSSL's choice."""
    min_version: str = "TLS1.2"
    max_version: str = ""
    auto: bool = False
    """Use a certificate that we make and sign ourselves (self_signed.py)."""
    auto_years: int = 1

    def __post_init__(self) -> None:
        for name in ("cert_file", "key_file", "trusted_ca_file", "crl_file"):  # read again when they change
            if file := getattr(self, name):
                object.__setattr__(self, name, os.path.abspath(file))
        if bool(self.cert_file) != bool(self.key_file):
            raise BadOption("--cert-file and --key-file need each other")
        if self.client_cert_auth and not self.trusted_ca_file:
            raise BadOption("--client-cert-auth needs --trusted-ca-file: who else may sign for a client?")
        if (self.crl_file or self.allowed_hostnames) and not self.trusted_ca_file:
            raise BadOption("certificates of clients are looked at with --trusted-ca-file only")
        if self.max_version and self.max_version < self.min_version:
            raise BadOption(f"--tls-max-version {self.max_version} is below {self.min_version}, the least")
        if self.cipher_suites and self.min_version == "TLS1.3":
            raise BadOption("cipher suites cannot be chosen where only TLS 1.3 is spoken")

    @property
    def is_complete(self) -> bool:
        return bool(self.cert_file) or self.auto


class TLS:
    """The TLS of one server."""

    def __init__(self, settings: TLSSettings) -> None:
        """Raises ``BadOption`` where a file cannot be read, or is not what it should be."""
        self.settings = settings
        self._files = [
            file
            for file in (settings.cert_file, settings.key_file, settings.trusted_ca_file, settings.crl_file)
            if file
        ]
        self._seen = self._looks()
        self._newest, self._revoked = new_context(settings), revoked(settings)
        self.context = _OfTheMoment(ssl.PROTOCOL_TLS_SERVER)
        """For listeners."""
        self.context.newest = self._renewed

    def _renewed(self) -> ssl.SSLContext:
        """The context for a connection that begins now."""
        looks = self._looks()
        if looks != self._seen:
            self._seen = looks
            try:
                self._newest, self._revoked = new_context(self.settings), revoked(self.settings)
                logger.info("certificates were read anew", extra={"files": self._files})
            except BadOption as error:
                logger.error("certificates stay what they were", extra={"error": str(error)})
        return self._newest

    def _looks(self) -> list[tuple[int, int, int]]:
        """What tells that a file has changed."""
        found = []
        for file in self._files:
            try:
                status = os.stat(file)
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return found

    def refusal(self, certificate: Certificate | None) -> str:
        """Why a client is turned away after its handshake; empty: it is not."""
        hosts = self.settings.allowed_hostnames
        serial = (certificate or {}).get("serialNumber", "")
        if serial and int(serial, 16) in self._revoked:
            return f"its certificate, serial number {serial}, is revoked"
        if not hosts or any(is_for(host, certificate or {}) for host in hosts):
            return ""
        return f"its certificate is for none of {', '.join(hosts)}"

    def user_of(self, certificate: Certificate | None) -> str:
        """The user that a client's certificate names; empty: none."""
        return common_name(certificate or {}) if self.settings.client_cert_auth else ""


class _OfTheMoment(ssl.SSLContext):
    """What a listener is given: of the connections that come, each gets the newest context there is.

    Sessions are kept by a context. So none is resumed whose client would not be let in any more.
    """

    newest: Callable[[], ssl.SSLContext]

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self.newest().wrap_bio(*arguments, **named)


def new_context(settings: TLSSettings) -> ssl.SSLContext:
    """A context of the files as they are now. Raises ``BadOption``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.min_version]
    if settings.max_version:
        context.maximum_version = VERSIONS[settings.max_version]
    context.set_alpn_protocols(PROTOCOLS)
    if settings.cipher_suites:
        _choose(context, settings.cipher_suites)
    _load(context.load_cert_chain, settings.cert_file, settings.key_file)
    if settings.trusted_ca_file:
        _load(context.load_verify_locations, settings.trusted_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def revoked(settings: TLSSettings) -> frozenset[int]:
    """The serial numbers of certificates of clients that do not count any more. Raises ``BadOption``."""
    if not settings.crl_file:
        return frozenset()
    try:
        return revoked_serials(Path(settings.crl_file).read_bytes())
    except (OSError, ValueError) as error:
        raise BadOption(f"{settings.crl_file} is no list of revoked certificates: {error}") from error


def _load(load: Any, *files: str) -> None:
    try:
        load(*files)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BadOption(f"{' with '.join(files)} cannot be used for TLS: {error}") from error


# --- cipher suites ----------------------------------------------------------------------

_SUITE = re.compile(r"TLS_(?:(ECDHE)_)?(ECDSA|RSA)_WITH_(\w+?)(?:_(SHA\d*))?")
_CIPHERS = {"3DES_EDE_CBC": "DES-CBC3", "RC4_128": "RC4"}


def openssl_name(suite: str) -> str:
    """OpenSSL's name of one of TLS 1.2's suites, by its IANA name; empty: it has none of that form."""
    match = _SUITE.fullmatch(suite)
    if match is None:
        return ""
    exchange, signature, cipher, digest = match.groups()
    parts = [exchange, signature] if exchange else []
    parts.append(_CIPHERS.get(cipher) or re.sub(r"^AES_(\d+)", r"AES\1", cipher).removesuffix("_CBC"))
    if digest and "POLY1305" not in cipher:
        parts.append(digest)
    return "-".join(parts).replace("_", "-")


def _choose(context: ssl.SSLContext, suites: tuple[str, ...]) -> None:
    names = []
    for suite in suites:
        if suite.startswith(("TLS_AES_", "TLS_CHACHA20_")):
            continue  # of TLS 1.3, which always has all of its few
        names.append(openssl_name(suite))
        try:
            context.set_ciphers(names[-1] or suite)
        except ssl.SSLError:
            raise BadOption(f"--cipher-suites: this OpenSSL does not know {suite:.100}") from None
    if names:
        context.set_ciphers(":".join(names))


# --- the certificate of a client ----------------------------------------------------------


def common_name(certificate: Certificate) -> str:
    """The last common name of its subject."""
    found = ""
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                found = value
    return found


def is_for(host: str, certificate: Certificate) -> bool:
    """Whether a certificate's alternative names have this host. A star stands for its first label."""
    names = certificate.get("subjectAltName", ())
    try:
        address = ip_address(host)
    except ValueError:
        wanted = host.lower().rstrip(".")
        domain = wanted.partition(".")[2]
        accepted = (wanted, f"*.{domain}") if domain else (wanted,)
        return any(kind == "DNS" and name.lower().rstrip(".") in accepted for kind, name in names)
    return any(kind == "IP Address" and _same_address(name, address) for kind, name in names)


def _same_address(name: str, address: Any) -> bool:
    try:
        return bool(ip_address(name.strip()) == address)
    except ValueError:
        return False
