"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

x509: Any = pytest.importorskip(
    "cryptography.x509", reason="certificates are made with the package cryptography"
)
hashes: Any = pytest.importorskip("cryptography.hazmat.primitives.hashes")
serialization: Any = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ec: Any = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    cert: str
    key: str
    serial: int


class Authority:
    """Signs certificates, and takes them back."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._certificate(self._name, self._key.public_key(), [], is_ca=True)
        self.file = str(folder / f"{name}.pem")
        Path(self.file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _certificate(self, subject: Any, public_key: Any, hosts: list[str], *, is_ca: bool = False) -> Any:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(_usage(is_ca=is_ca), critical=True)
        )
        if hosts:
            names = [_general_name(host) for host in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def sign(self, common_name: str, *hosts: str, file: str = "") -> Pair:
        """A certificate for a name and hosts, in files called for the name (or ``file``)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        certificate = self._certificate(subject, key.public_key(), list(hosts))
        pem = serialization.Encoding.PEM
        made = Pair(
            str(self._folder / f"{file or common_name}.crt"),
            str(self._folder / f"{file or common_name}.key"),
            certificate.serial_number,
        )
        Path(made.cert).write_bytes(certificate.public_bytes(pem))
        Path(made.key).write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return made

    def revoke(self, *pairs: Pair, encoding: Any = serialization.Encoding.PEM, days_ago: float = 0.0) -> str:
        """A file with the list of what does not count any more, which is good for a day."""
        now = datetime.now(UTC) - days_ago * DAY
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - timedelta(seconds=1))
            .next_update(now + DAY)
        )
        for pair in pairs:
            revoked = (
                x509.RevokedCertificateBuilder().serial_number(pair.serial).revocation_date(now - DAY).build()
            )
            builder = builder.add_revoked_certificate(revoked)
        file = self._folder / "revoked.pem"
        file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(encoding))
        return str(file)


def _usage(*, is_ca: bool) -> Any:
    """What strict clients (Python's, from 3.13 on) want to be said."""
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
