"""Where a server listens: etcd's client URLs.

    http://127.0.0.1:2379    https://[::1]:2379    http://localhost:0    unix:///run/kv.sock    unixs://kv.sock

Port 0 is any free one. What follows ``unix://`` is the path of a socket, absolute or not; ``unixs`` speaks TLS on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from urllib.parse import urlsplit

from kvstore.options import BadOption

SCHEMES = ("http", "https", "unix", "unixs")
WILDCARDS = ("0.0.0.0", "::")


class Serves(Enum):
    """What is answered at a URL."""

    ALL = "grpc+http"
    GRPC = "grpc"
    HTTP = "http"
    METRICS = "metrics"
    """``/metrics`` and the probes of health."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A URL to listen at."""

    url: str
    scheme: str
    host: str = ""
    """An IP address, or ``localhost``."""
    port: int = 0
    path: str = ""
    """Of a Unix socket; then there is no host."""
    serves: Serves = Serves.ALL
    mode: int = 0
    """Permissions of the socket's file; 0: as the process's umask has it."""

    @property
    def is_tls(self) -> bool:
        return self.scheme in ("https", "unixs")

    def at(self, port: int) -> str:
        """The URL with the port that was really taken."""
        return self.url if self.path else f"{self.scheme}://{bracketed(self.host)}:{port}"


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def parse_url(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, path of a socket) of a URL. Raises ``BadOption``."""
    try:
        parts = urlsplit(url)
        port = None if parts.scheme in ("unix", "unixs") else parts.port
    except ValueError as error:
        raise BadOption(f"{url!r:.200} is not a URL: {error}") from None
    if parts.scheme not in SCHEMES:
        raise BadOption(f"URL scheme must be http, https, unix, or unixs: {url:.200}")
    if parts.scheme in ("unix", "unixs"):
        path = parts.netloc + parts.path
        if not path:
            raise BadOption(f"URL must name a socket, as unix:///run/kv.sock does: {url:.200}")
        return parts.scheme, "", 0, path
    if port is None or parts.hostname is None or "@" in parts.netloc:
        raise BadOption(f'URL address does not have the form "host:port": {url:.200}')
    if parts.path or parts.query or parts.fragment:
        raise BadOption(f"URL must not contain a path: {url:.200}")
    return parts.scheme, parts.hostname, port, ""


def parse_urls(text: str) -> tuple[str, ...]:
    """URLs with commas between them, each once."""
    urls = tuple(dict.fromkeys(url for part in text.split(",") if (url := part.strip())))
    for url in urls:
        parse_url(url)
    return urls


def listener(url: str, serves: Serves = Serves.ALL) -> Listener:
    """A URL to bind to. Raises ``BadOption`` for a host name: it may stand for another address tomorrow."""
    scheme, host, port, path = parse_url(url)
    if host and host != "localhost" and not _is_address(host):
        raise BadOption(f"expected an IP address or localhost to listen at, not {host!r} ({url:.200})")
    return Listener(url, scheme, host, port, path, serves)


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def reachable(url: str) -> str:
    """The URL that clients on this machine are told: a wildcard is no address to connect to."""
    scheme, host, port, path = parse_url(url)
    return url if path or host not in WILDCARDS else f"{scheme}://localhost:{port}"
