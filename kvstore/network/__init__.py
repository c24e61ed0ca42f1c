"""A store on the network: etcd's v3 API, for every client that speaks it.

    bytes       http2/        frames, headers and flow control of HTTP/2: no socket, no gRPC
                grpc          messages, metadata and statuses on a stream of it
    sockets     server        listeners; what each accepts is one of the next two
                grpc_peer     a connection that speaks HTTP/2
                http1_peer    one that speaks HTTP/1.1, through h11
    web         exchange      a request of HTTP and its answer, whichever HTTP it is
                web           who answers: pages (health, version, metrics) or gateway (calls over JSON)
    calls       call          one call under way, whoever it came from: what a service gets
                endpoint      what all services share: the engine, the loop, threads, the answer's header
                services/     etcd's services, one module each, and the table of their methods

A service is a function of the endpoint, a call and the bytes of its request. It knows no HTTP, and the connections know
no service but by the table. Everything below runs on one event loop, which plans no write, waits for no disk and reads
no more than a few hundred rows at a time; what may take longer goes to a thread.

Nothing of kvstore imports this folder: it is found by the entry point ``kvstore.network``.
"""
