"""The event loop of a thread of ours: uvloop's where it is installed, asyncio's otherwise.

In processes patched by gevent or eventlet it is asyncio's. What they call threads takes turns in one, where one event
loop can run, and only one that they have patched: so one server or one connection works there, and a second would
never get its turn.
"""

from __future__ import annotations

import asyncio
import sys

from kvstore.errors import Unsupported

_PATCHED = (
    ("gevent.monkey", "is_module_patched", "threading"),
    ("eventlet.patcher", "is_monkey_patched", "thread"),
)


def check_a_loop_can_start() -> None:
    """Raises ``Unsupported`` in a patched process in which an event loop runs already."""
    by = _patched_by()
    if not by:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise Unsupported(
        f"this process is patched by {by[0].partition('.')[0]}, whose threads cannot run a second event loop: "
        "close the connection or server that is open here, or use a process of its own; "
        "shared=True needs two, and does not work here"
    )


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop to serve on, for whoever runs it."""
    if not _patched_by():
        try:
            import uvloop
        except ImportError:
            pass
        else:
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
    return asyncio.new_event_loop()


def _patched_by() -> list[str]:
    return [name for name, asked, what in _PATCHED if getattr(sys.modules.get(name), asked, _no)(what)]


def _no(_what: str) -> bool:
    return False
