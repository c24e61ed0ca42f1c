"""What the benchmarks are made of.

contest    contestants measured in turns (A B A B ...), goals between them      the model: read this first
place      the directory of a run: fresh folders, stores that are built once
timing     rates and percentiles                        workload   keys and values, the same for all contestants
ours       opening our store, writing to it from threads, tasks and processes
peers      LMDB, SQLite, LevelDB ... behind one small face
server, etcd_server     ours and a real etcd on the network, each in a process of its own
etcd_load, load_loop, http2                             a load generator that is cheap enough: jobs, loop, frames
rows_*     the rows (catalogue lists them): each function sets up one contest; its docstring says what is measured
machine    where it ran          report     table, JSON, picture          page     the page of docs, with its pictures
"""
