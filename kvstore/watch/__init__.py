"""Watch: what changed, in order, without a gap, from any kept revision on.

Read in this order: ``index`` (which watchers want a key), ``watcher`` (one watch), ``mailbox`` (what waits for a
consumer), ``events`` (what the consumer gets), ``hub`` (live delivery), ``stream`` (the consumer's side, and catching
up), ``iterators`` (the faces of one watch).

    commit leader --rings--> hub's thread --routes by key--> a mailbox per stream --> consumer's thread
                             reads new changes once                   ^
                             from the generations                     | catching up: the consumer's own thread
                                                                      | reads pages of changes from the store

A watch has one integer, its *position*: the next revision it wants. It is either

* **live**: in the hub's index. The hub gives it whole revisions and advances its position; or
* **behind**: in no index, at no cost. Its consumer reads the store from the position on, and asks the hub to take the
  watch once its position is past what is published. The hub does, if that is also past what it has taken, or refuses.
  The watch belongs to one of the two at a time: there is neither a gap nor a duplicate.

A watch whose queue is full becomes behind. So a slow consumer blocks nothing else, and holds at most
``Options.watch_buffer`` bytes; if a compaction passes its position it is told so, and never gets a gap.

What a watch promises:

    ordered      by revision                     atomic       a revision's events come in one response
    unique       no event twice                  resumable    from any kept revision
    reliable     no event missing                bookmarkable a response of revision R: all up to R is delivered
"""

from __future__ import annotations

from kvstore.watch.hub import Hub
from kvstore.watch.iterators import CallbackWatch, Watch
from kvstore.watch.stream import WatchStream

__all__ = ["CallbackWatch", "Hub", "Watch", "WatchStream"]
