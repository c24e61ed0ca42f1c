"""Sockets that listen: the real port, IPv6, and what a killed server leaves behind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kvstore.files import OSDisk
from kvstore.network.addresses import listener
from kvstore.network.sockets import bind, bind_all

DISK = OSDisk()


def test_a_change_of_directory_leaves_sockets_of_the_same_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that goes is the one that was made."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kv.sock").touch()
    monkeypatch.chdir(tmp_path)
    bound = bind(listener("unix://kv.sock"), DISK)
    monkeypatch.chdir(tmp_path / "elsewhere")
    bound.close(DISK)
    assert not (tmp_path / "kv.sock").exists()
    assert (tmp_path / "elsewhere" / "kv.sock").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::]"])
def test_port_0_is_any_free_one(host: str) -> None:
    """The URL has the port that was taken, and clients reach it."""
    if "[" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    bound = bind(listener(f"http://{host}:0"), DISK)
    port = bound.socket.getsockname()[1]
    assert port > 0
    assert bound.url == f"http://{host}:{port}"
    socket.create_connection(("::1" if host == "[::1]" else "127.0.0.1", port)).close()
    bound.close(DISK)


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_an_address_in_use_is_told_with_its_url() -> None:
    """And what was bound before it is let go: all of them, or none."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with socket.create_server(("127.0.0.1", 0)) as spare:
            free = spare.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen at {url}: Address already in use"):
            bind_all([listener(f"http://127.0.0.1:{free}"), listener(url)], DISK)
        bind(listener(f"http://127.0.0.1:{free}"), DISK).close(DISK)


def test_the_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    """Nobody listens at it any more. Closing takes the file along, and may be done twice."""
    path = tmp_path / "kv.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    bound = bind(listener(f"unix://{path}"), DISK)
    assert bound.url == f"unix://{path}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    bound.close(DISK)
    bound.close(DISK)
    assert not path.exists()


def test_a_socket_may_be_named_like_a_host_with_a_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that no port can have is part of the name, too."""
    monkeypatch.chdir(tmp_path)
    bound = bind(listener("unix://localhost:4734833275914284419"), DISK)
    assert (tmp_path / "localhost:4734833275914284419").is_socket()
    bound.close(DISK)


def test_a_socket_in_use_and_other_files_stay(tmp_path: Path) -> None:
    """A second server is refused at the socket of the first, and no file of somebody's is removed."""
    url = f"unix://{tmp_path / 'kv.sock'}"
    bound = bind(listener(url), DISK)
    with pytest.raises(OSError, match="Address already in use"):
        bind(listener(url), DISK)
    bound.close(DISK)
    (tmp_path / "kv.sock").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        bind(listener(url), DISK)
    assert (tmp_path / "kv.sock").read_bytes() == b"mine"
