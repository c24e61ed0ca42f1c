"""What one peer may have us hold, how long it may take, and what a login may cost us.

(What is HTTP/2's alone: http2/limits.py.)
"""

from __future__ import annotations

# --- connections -----------------------------------------------------------------------------------

CONNECTIONS = 10_000
"""Accepted at one time; more wait to be accepted."""
SPARE_DESCRIPTORS = 100
"""File descriptors of the process that connections leave to the store."""
PREFACE_SECONDS = 20.0
"""In which a connection has to show what it speaks."""
HANDSHAKE_SECONDS = 20.0
"""The same for TLS before that."""
WRITE_STALL_SECONDS = 60.0
"""In which a peer has to take something of what waits for it."""
WRITE_BUFFER_BYTES = 1 << 20
"""What the socket of a connection may owe its peer before streams of answers wait."""

# --- calls -----------------------------------------------------------------------------------------

ANSWER_BYTES = 16 << 20
"""Answers of one connection that wait for its peer. Beyond it, no request of the connection is begun."""
ALL_ANSWER_BYTES = 256 << 20
"""The same for all connections together. Beyond it, only connections go on of which little waits:"""
SPARED_BYTES = 64 << 10
QUEUED_REQUESTS = 1_000
"""Requests of one connection that are not begun, for such a reason; one more is refused."""
ALL_REQUEST_BYTES = 256 << 20
"""Requests, of all connections, that have not come to their end or are not begun. Beyond it, the connection that has
most of them is ended."""
RECOUNT_SECONDS = 0.1
"""How soon it is seen that there is room again, where no connection says so."""
TURN_SECONDS = 0.005
"""Spent on the requests of one connection, or on watches, before others have their turn."""
FRAMES_BYTES = 32 << 10
"""Of what one connection sends by HTTP/2, looked at before others have their turn: up to some thousand frames."""

PAGED_BYTES = 64 << 10
"""A range whose answer is longer is sent a page at a time."""
PAGED_THREADS = 2
"""So many large ranges are measured at one time; others wait."""

# --- HTTP/1.1 and JSON -----------------------------------------------------------------------------

HEADER_BYTES = 16 << 10
"""Request line and header fields of a request."""
HEADER_SECONDS = 30.0
"""From the first byte of a request to the end of its header."""
BODY_IDLE_SECONDS = 60.0
"""Between two pieces of a body that somebody waits for."""
CLOSE_SECONDS = 5.0
"""In which a WebSocket that we have closed is closed by its client, too."""
UNREAD_BODY_BYTES = 32 << 20
"""Of a body that came after its answer, before the connection is closed instead of read on."""
WAITING_BYTES = 64 << 10
"""Of what came before it could be looked at; then the connection is not read."""
TURN_BYTES = 2 << 10
"""Looked at before other connections have their turn: some requests, or very many messages of a stream."""

BODY_FACTOR = 2
"""A body of JSON may be so many times as long as the largest message: base64 takes a third more, names and blanks
the rest."""
STREAM_VALUE_CHARACTERS = 256 << 10
"""The longest JSON value in a body that is a sequence of them. What is there is parsed anew with every piece."""
LONG_MESSAGE_BYTES = 32 << 10
"""What is longer is turned into JSON, or read from it, in a thread; so is what a call says beyond it in one turn."""

CLIENT_VERSIONS = 100
"""So many versions of clients are counted apart; then they are "other"."""
CLIENT_VERSION_CHARACTERS = 32
"""So are longer ones."""

LOGINS_PER_SECOND = 10.0
LOGINS_BURST = 100
"""Tokens asked for from one address: what goes beyond is refused."""
LOGIN_ADDRESSES = 10_000
"""So many addresses are counted apart; then those that have been quiet the longest begin anew."""
PASSWORDS_WAITING = 1_000
"""Being hashed, or waiting for one of the two threads that do it."""
