"""A store elsewhere: ``kvstore.connect``, an engine that asks a server of etcd's API v3.

    Store ──> engine ──┐                                                      ┌──> connection ──> a server
                       ├──> asking ──Call──> client ──attempt, again, give up─┤
    AsyncStore ──> awaiting                    └──Stream──> watches, keepalives

    what is asked    asking         every call of ``Engine`` as calls of etcd's API, written once for both faces
                     methods        etcd's methods, and which of them may be repeated
                     encoding       requests as messages, answers as ours; messages: what a client reads of an answer,
                                    answers: that of a put or a range, at once
                     past           history out of a watch;  differences: two revisions, merged
                     snapshots      a snapshot, streamed into a file and verified;  members: work on each of a cluster
                     page           a page over HTTP/1.1, such as that of metrics
    how              client         deadlines, repetition, who waits
                     connecting     the way to a server of this cluster;  tokens: who we are to it
                     outcome        what a status means for what was asked, and whose error it is
                     calls          one call, one stream, and who waits for it
                     endpoints      whose turn it is;  options: the URL and the options
                     connection     one HTTP/2 connection: TLS, signs of life, everything of a turn in one write
                     thread         the loop that all of this runs on
    what stays open  streams        the seam: what watches and keep-alives need of a client
                     watches        over watch_link (streams that they share), watch_machine and watch_wire;  keepalives

A client owns one thread with a loop of its own, for tasks as well: leases are kept alive and watches are read while the
loops of its callers wait for something else.
"""
