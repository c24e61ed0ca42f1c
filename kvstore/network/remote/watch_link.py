"""The streams of etcd's Watch that one client has open, each with the watches of many subscribers.

    Subscriber, Subscriber ... --join--> WatchLink ---> WatchMachine ---> messages ---> Stream
                 ^                          ^                                             |
                 +---- post, fail ----------+------------- received, ended ---------------+

The link asks for connections, waits between two of them, and gets tokens; what happens to the watches is the machine's
to say. It is open as long as somebody subscribes to it.

Subscribers know nothing of each other. A watch that is not read is stopped at the server, alone. Two things are about a
whole stream, and so get one to themselves (``alone``): a question for progress; and a stream that ended with an error
which one of its watches may have caused: each subscriber goes on alone, and fails alone.

Everything is called on the loop's thread.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from kvstore.errors import Code, KVStoreError, StoreClosed, Unauthenticated
from kvstore.model import WatchPosition
from kvstore.network.remote.methods import WATCH
from kvstore.network.remote.outcome import error_of
from kvstore.network.remote.past import tells_progress
from kvstore.network.remote.streams import Stream, Streams, Timer, backoff
from kvstore.network.remote.watch_machine import Owner, RemoteWatch, WatchMachine

ASK_AGAIN_SECONDS = 0.5
"""After this time a server may be asked for progress once more."""
TOKEN_ATTEMPTS = 3
"""Token errors in a row after which another token will not help."""
WATCHES_A_STREAM = 100
"""A stream with so many takes no further subscriber. One event may be for all of them, and etcd (3.4 to 3.6) lets those
wait that do not fit among the 128 responses that it keeps for a stream. Streams are created anew side by side, but the
watches of each one after the other."""


class Server(Streams, Protocol):
    """The client, as far as watches need it."""

    @property
    def version(self) -> str:
        """Of the server that is asked; "" if it does not say."""


class Subscriber(Owner, Protocol):
    """Who has watches on a link."""

    def fail(self, error: KVStoreError) -> None:
        """Nothing more comes. It leaves the link."""

    def move(self) -> WatchLink:
        """Go on with a link that nobody else has."""


class Links:
    """Those of one client."""

    def __init__(self, streams: Server) -> None:
        self._streams = streams
        self._roomy: dict[WatchLink, None] = {}
        """Open ones that may have room."""

    def join(self, subscriber: Subscriber) -> WatchLink:
        """A link with room."""
        while self._roomy:
            link = next(iter(self._roomy))
            if not link.is_crowded:
                break
            del self._roomy[link]
        else:
            link = WatchLink(self._streams, self)
            self._roomy[link] = None
        link.subscribers[subscriber] = None
        return link

    def alone(self, subscriber: Subscriber, link: WatchLink | None) -> WatchLink:
        """A link for nobody else; ``link`` is the one that it has: its watches go on where they are."""
        if link is not None and len(link.subscribers) == 1:
            self._roomy.pop(link, None)
            link.is_alone = True
            return link
        new = WatchLink(self._streams, self, 0 if link is None else link.machine.cluster_id)
        new.is_alone = True
        new.subscribers[subscriber] = None
        if link is not None:
            new.machine.revision = link.machine.revision
            for watch in list(subscriber.watches):
                link.machine.cancel(watch)
                new.machine.adopt(watch)
            link.left(subscriber)
            new.go_on()
        return new

    def left(self, link: WatchLink) -> None:
        """A link has lost a subscriber."""
        if not link.subscribers:
            link.close()
        elif not link.is_alone and not link.is_over:
            self._roomy[link] = None

    def closed(self, link: WatchLink) -> None:
        self._roomy.pop(link, None)


class WatchLink:
    """One stream after the other: a ``Receiver``."""

    def __init__(self, streams: Server, links: Links, cluster_id: int = 0) -> None:
        self._streams = streams
        self._links = links
        self.machine = WatchMachine(cluster_id)
        self.subscribers: dict[Subscriber, None] = {}
        self.is_alone = False
        """Whether nobody else may join."""
        self._stream: Stream | None = None
        self._timer: Timer | None = None
        self._ask_timer: Timer | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._attempts = 0
        self._token_errors = 0
        """Of whole streams, in a row."""
        self.is_over = False

    @property
    def is_crowded(self) -> bool:
        return max(len(self.subscribers), len(self.machine)) >= WATCHES_A_STREAM

    # --- what the subscribers ask for ---------------------------------------------------

    def create(self, watch: RemoteWatch, start: WatchPosition) -> None:
        self.machine.create(watch, start)
        self.go_on()

    def cancel(self, watch: RemoteWatch) -> None:
        self.machine.cancel(watch)
        self.go_on()

    def drained(self, watch: RemoteWatch) -> None:
        self.machine.drained(watch)
        self.go_on()

    def ask_progress(self) -> None:
        """Of a link with one subscriber."""
        self.machine.ask_progress()
        self.go_on()

    def left(self, subscriber: Subscriber) -> None:
        """It has moved, or wants nothing more."""
        for watch in list(subscriber.watches):
            self.machine.cancel(watch)
        del self.subscribers[subscriber]
        self._links.left(self)
        self.go_on()

    def close(self) -> None:
        self.is_over = True
        self._links.closed(self)
        for handle in (self._timer, self._ask_timer, self._renewal):
            if handle is not None:
                handle.cancel()
        self._drop_stream()

    # --- what the server says -----------------------------------------------------------

    def received(self, message: bytes) -> None:
        self._attempts = self._token_errors = 0
        machine = self.machine
        try:
            machine.received(message)
        except KVStoreError as error:
            self._fail(error)
            return
        if machine.trusts_progress is None:
            machine.trust_progress(tells_progress(self._streams.version))
        self.go_on()

    def ended(self, error: KVStoreError | None) -> None:
        self._stream = None
        self.machine.lost()
        if self.is_over:
            return
        if isinstance(error, Unauthenticated):
            self._token_errors += 1
            self._renew_token(error, self._token_errors)
        elif error is None or error.retryable:
            self._go_on_later()
        elif len(self.subscribers) == 1 or isinstance(error, StoreClosed):
            self._fail(error)
        else:
            for subscriber in list(self.subscribers):
                subscriber.move()
            self._go_on_later()  # with the one that is left

    def go_on(self) -> None:
        """Do what the machine wants done."""
        machine = self.machine
        if self.is_over:
            return
        if machine.refused_watch is not None and self._renewal is None:
            refusal = error_of(Code.UNAUTHENTICATED, machine.refused)
            self._renew_token(refusal, machine.refused_watch.token_errors)
            return
        if self._stream is None and machine.needs_stream and self._timer is None and self._renewal is None:
            self._stream = self._streams.open(WATCH, self)
            machine.opened()
        if self._stream is not None:
            for message in machine.out:
                self._stream.send(message)
            machine.out.clear()
        if machine.wants_progress and self._ask_timer is None:
            self._ask_timer = self._streams.later(ASK_AGAIN_SECONDS, self._ask_again)

    def _go_on_later(self) -> None:
        self._attempts += 1
        self._timer = self._streams.later(backoff(self._attempts), self._pause_is_over)

    def _pause_is_over(self) -> None:
        self._timer = None
        self.go_on()

    def _ask_again(self) -> None:
        self._ask_timer = None
        if self.machine.wants_progress:
            self.machine.ask_again()
            self.go_on()

    def _fail(self, error: KVStoreError) -> None:
        self.close()
        for subscriber in list(self.subscribers):
            subscriber.fail(error)

    # --- tokens -------------------------------------------------------------------------

    def _renew_token(self, error: KVStoreError, errors: int) -> None:
        if errors > TOKEN_ATTEMPTS:
            self._give_up(error)
        elif self._renewal is None:
            self._renewal = asyncio.get_running_loop().create_task(self._reauthenticate())

    async def _reauthenticate(self) -> None:
        try:
            await self._streams.reauthenticate()
        except KVStoreError as error:
            self._renewal = None
            if not error.retryable:
                self._give_up(error)
                return
        self._renewal = None
        self._drop_stream()  # it keeps the token that it was opened with
        self._go_on_later()

    def _give_up(self, error: KVStoreError) -> None:
        """No token helps: end the watch that was refused; all, if the stream was."""
        refused = self.machine.refused_watch
        if refused is None:
            self._fail(error)
        else:
            self.machine.give_up()
            refused.owner.fail(error)
            self.go_on()

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        self.machine.lost()
