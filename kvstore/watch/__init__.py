"""Watch: what changed, in order, without a gap, from any kept revision on.

Read in this order: ``index`` (who wants a key), ``watcher`` (one watch), ``mailbox`` (what waits for a consumer),
``events`` (what it gets), ``hub`` (live delivery), ``stream`` (what a consumer takes, and catching up), ``iterators``
(the faces of one watch).

    commit leader --rings--> hub's thread --routes by key--> a mailbox per stream --> consumer's thread
                             reads new changes once                   ^
                             from the generations                     | catching up: the consumer's own thread
                                                                      | reads pages of changes from the store

A watch has one integer, its *position*: the next revision it wants. It is either

* **live**: in the hub's index. The hub hands it whole revisions and moves its position on; or
* **behind**: in nobody's index and costing nothing. Whoever consumes it reads the store from the position on, and
  asks the hub to take it once its position lies past what is published. The hub does, if that is past what it has
  taken as well, or says no. The watch belongs to one of the two at a time: there is neither a gap nor a duplicate.

A watch whose queue is full becomes behind. So a slow consumer blocks nobody, and holds ``Options.watch_buffer``
bytes at most; and if a compaction passes its position it is told so, never given a gap.

What a watch promises:

    ordered      by revision                     atomic       a revision's events come in one response
    unique       no event twice                  resumable    from any kept revision
    reliable     no event left out               bookmarkable a response of revision R: all up to R has come
"""

from __future__ import annotations

from kvstore.watch.hub import Hub
from kvstore.watch.iterators import CallbackWatch, Watch
from kvstore.watch.stream import WatchStream

__all__ = ["CallbackWatch", "Hub", "Watch", "WatchStream"]
