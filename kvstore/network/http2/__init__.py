"""HTTP/2 (RFC 9113, RFC 7541) without sockets, for both ends of a connection.

    receive(bytes) ──> frames ──> streams ──> calls of a Handler: begin, data, reset, drained, closing
                          │
    out: list of bytes <──┴── answer, head, write, close, finish, reset, ping, go_away

What arrives is given to `receive`, whose one loop parses frames and calls the handler. What is to be sent is appended
to `out`, which the owner joins, writes and clears when it sees fit: once per read, or once per group of answers. There
is no clock, no thread, and no buffer beyond an unfinished frame, an unfinished header block, and data that waits for a
window. Neither end knows what the streams carry.

| module | what it does |
|---|---|
| `limits` | every number that a peer cannot go beyond, and `Bucket`, so much of something a second |
| `frames` | kinds, flags, error codes, settings, and the nine bytes in front of a frame |
| `huffman`, `hpack` | header blocks: strings, the two tables, the decoder; what we send is encoded without a table |
| `fields` | header fields judged one by one when they enter a table, and whole lists by what was seen in them |
| `stream` | one request and its answer |
| `sending` | frames out: header blocks, and data as far as the windows are open |
| `receiving` | frames in: the loop, and what both ends do with each kind |
| `connection` | `ServerConnection` and `ClientConnection`, and what a `Handler` of either has to have |

What a peer does wrong has one of two consequences. A *stream error* ends one stream: RST_STREAM, and `Handler.reset`
if the request had begun. A *connection error* ends everything: GOAWAY with the code and a reason in words, every open
stream is reset, `dead` is true, and `Handler.closing` asks the owner to write what is left and to close.

Left out, on purpose: server push (refused), priorities (read and ignored), upgrades from HTTP/1.1, extended CONNECT,
and a dynamic table for what we send: constants encoded beforehand cost less than it would save.
"""
