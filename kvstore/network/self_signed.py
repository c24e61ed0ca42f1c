"""A certificate that a server makes for itself (``--auto-tls``): for encryption, where nobody has to know who it is.

    <folder>/cert.pem, key.pem      kept, so that a client that pinned the certificate finds it again after a restart

The two are one pair or are made anew: the key is written first, and a certificate that is no fit for it, or has run
out, is replaced with it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kvstore.errors import MissingDependency
from kvstore.files import Disk
from kvstore.network.tls import TLSSettings, new_context
from kvstore.options import BadOption

ORGANIZATION = "kvstore"


def self_signed(settings: TLSSettings, folder: Path, hosts: Iterable[str], disk: Disk) -> TLSSettings:
    """The settings with a certificate of our own, which is in ``folder`` or is put there."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    found = replace(settings, cert_file=str(cert), key_file=str(key))
    if not _is_good(found):
        made_cert, made_key = _made(sorted(set(hosts)), settings.auto_years)
        disk.make_dir(folder)
        for path, content in ((key, made_key), (cert, made_cert)):
            _put(disk, path, content)
        disk.sync_dir(folder)
    return found


def _is_good(settings: TLSSettings) -> bool:
    try:
        new_context(settings)
    except BadOption:
        return False
    x509 = _cryptography()
    found = x509.load_pem_x509_certificate(Path(settings.cert_file).read_bytes())
    return bool(found.not_valid_after_utc > datetime.now(UTC))


def _put(disk: Disk, path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    disk.remove(temporary)
    file = disk.create(temporary)
    try:
        file.pwrite(content, 0)
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, path)


def _cryptography() -> Any:
    try:
        from cryptography import x509
    except ImportError as error:
        raise MissingDependency("--auto-tls needs a package: pip install 'kvstore-mvcc[tls]'") from error
    return x509


def _made(hosts: list[str], years: int) -> tuple[bytes, bytes]:
    """(certificate, key) as PEM."""
    x509 = _cryptography()
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, ORGANIZATION)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # for clients whose clocks are behind
        .not_valid_after(now + timedelta(days=365 * years))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return certificate.public_bytes(pem), key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _general_name(host: str) -> Any:
    x509 = _cryptography()
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
