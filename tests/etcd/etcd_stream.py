"""One stream of watches of a real etcd, over the JSON gateway: requests and responses are lines of JSON in the two
bodies of one HTTP exchange, both chunked and both open as long as the stream is.

etcd does not say when it has said everything (its progress notices may overtake events), so an answer is complete
once nothing has come for a while. A watch that is behind has its turn ten times a second, with all others that are:
``wait_until_served`` waits for one such turn.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

Message = dict[str, Any]

WAIT_SECONDS = 60.0
QUIET_SECONDS = 0.02
QUIET_TIMES = 6
"""Several short waits, not a long one: if all processes are stopped for a while, that counts as one of them."""


class RecordedStream:
    """A stream: ``send`` it a request, ``read`` all that is coming, ``take`` what has come."""

    def __init__(self, host: str) -> None:
        name, port = host.rsplit(":", 1)
        self._socket = socket.create_connection((name, int(port)))
        self._socket.sendall(
            f"POST /v3/watch HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n"
            "Connection: close\r\n\r\n".encode()  # without the last, the server drains the body first
        )
        self._received = b""
        self._came: list[Message] = []
        self._has_head = False

    def close(self) -> None:
        self._socket.close()

    def send(self, request: Message) -> None:
        line = json.dumps(request).encode() + b"\n"
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(line), line))

    def take(self) -> list[Message]:
        """What has come since the last time, by watch."""
        came, self._came = self._came, []
        return by_watch(came)

    def read(self) -> None:
        quiet = 0
        self._socket.settimeout(QUIET_SECONDS)
        while quiet < QUIET_TIMES:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                quiet += 1
                continue
            if not data:
                raise ConnectionResetError("the stream was closed")
            quiet = 0
            self._received += data
            self._take_chunks()

    def read_until(self, name: str) -> None:
        """Read until there is a response with this field."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not any(name in response for response in self._came):
            assert time.monotonic() < deadline, f"nothing came with {name!r}"
            self.read()

    def _take_chunks(self) -> None:
        if not self._has_head:
            _, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            self._has_head, self._received = True, rest
        while True:
            size, found, rest = self._received.partition(b"\r\n")
            if not found or len(rest) < int(size, 16) + 2:
                return
            for line in rest[: int(size, 16)].splitlines():
                if line.strip():
                    self._came.append(json.loads(line)["result"])
            self._received = rest[int(size, 16) + 2 :]


def wait_until_served(host: str, newest: int) -> None:
    """Until the watches that are behind by now have had their turn: a watch of the newest revision is one of them."""
    stream = RecordedStream(host)
    try:
        everything = {"key": "AA==", "range_end": "AA=="}
        stream.send({"create_request": {**everything, "start_revision": newest}})
        stream.read_until("events")
    finally:
        stream.close()


def by_watch(came: list[Message]) -> list[Message]:
    """Responses in the order of their watches; those with events, if of one watch and in a row, made one."""
    messages: list[Message] = []
    for response in sorted(came, key=lambda response: int(response.get("watch_id", 0))):
        watch_id = int(response.get("watch_id", 0))
        if "events" not in response:
            messages.append({**response, "watch_id": watch_id})
        elif messages and messages[-1]["watch_id"] == watch_id and "events" in messages[-1]:
            messages[-1]["events"] += response["events"]
        else:
            messages.append({"watch_id": watch_id, "events": response["events"]})
    return messages
