"""Encrypted objects: AES-256-GCM by the package cryptography, with the object's name as associated data.

    kvstore-sealed-1\\n | nonce (12 bytes, random) | ciphertext and tag

A nonce is drawn for each object, at random: good for 2**32 objects of one key, and a backup makes two a second at most.
The name is covered, so an object that was put in the place of another is noticed. What the key does not prevent:
whoever can write to the place can delete, and can bring back an older object under its own name.
"""

from __future__ import annotations

import os
from pathlib import Path

from kvstore.backup.errors import WrongKey
from kvstore.errors import Corruption, MissingDependency
from kvstore.options import BadOption

MAGIC = b"kvstore-sealed-1\n"
KEY_BYTES = 32
NONCE_BYTES = 12


def read_key(path: str | os.PathLike[str]) -> bytes:
    """The key in a file: 64 hexadecimal digits, as ``openssl rand -hex 32`` prints them. Raises ``BadOption``."""
    text = Path(path).read_bytes().strip()
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise BadOption(
            f"{os.fspath(path)} is not a key of {KEY_BYTES} bytes in hexadecimal; `openssl rand -hex 32` makes one"
        )
    return key


class Sealer:
    """Encrypts and decrypts with one key; without a key it does neither, and refuses what is encrypted."""

    def __init__(self, key: bytes | None) -> None:
        self._cipher = None
        if key is None:
            return
        if len(key) != KEY_BYTES:
            raise BadOption(f"a key has {KEY_BYTES} bytes, this one {len(key)}")
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingDependency(
                "encryption needs the package cryptography: pip install 'kvstore-mvcc[backup]'"
            ) from error
        self._cipher = AESGCM(key)

    def seal(self, name: str, data: bytes) -> bytes:
        if self._cipher is None:
            return data
        nonce = os.urandom(NONCE_BYTES)
        return MAGIC + nonce + self._cipher.encrypt(nonce, data, name.encode())

    def unseal(self, name: str, data: bytes) -> bytes:
        """Raises ``WrongKey``; ``Corruption`` cannot be told from a wrong key where nothing of the backup was read."""
        is_sealed = data.startswith(MAGIC)
        if self._cipher is None:
            if is_sealed:
                raise WrongKey(f"{name} is encrypted: give the key (--key-file)", name)
            return data
        if not is_sealed:
            raise WrongKey(f"{name} is not encrypted, and a key was given: who wrote it?", name)
        at = len(MAGIC)
        nonce, ciphertext = data[at : at + NONCE_BYTES], data[at + NONCE_BYTES :]
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(nonce, ciphertext, name.encode())
        except (InvalidTag, ValueError) as error:
            raise Corruption("it was encrypted with another key, or is damaged", name) from error
