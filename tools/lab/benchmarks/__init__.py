"""What the benchmarks are made of.

contest    contestants measured in turns (A B A B ...), goals between them      the model: read this first
place      the directory of a run: fresh folders, stores that are built once
timing     rates and percentiles                        workload   keys and values, the same for all contestants
ours       opening our store, writing to it from threads, tasks and processes
peers      LMDB, SQLite, LevelDB ... behind one small face
etcd_server, etcd_load, http2                           a real etcd, and a load generator that is cheap enough
rows_*     the rows (catalogue lists them): each function sets up one contest; its docstring says what is measured
machine    where it ran                                 report     table, JSON, picture
"""
