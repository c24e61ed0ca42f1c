"""Other layouts of the tables, measured end to end against today's, under the product's own planner, log and reads.

    python -m kvstore.tools.lab.layouts                                 100,000 keys, both backends: some minutes
    python -m kvstore.tools.lab.layouts --keys 1000000 --backend lmdb

The three tables of keys hold something else in each layout:

    layout       latest               history                          changes
    -----------  -------------------  -------------------------------  ----------------------------------
    today        key -> row           key, end -> row that ended       revision -> kind, key
    by-revision  key -> revision      key, revision -> nothing         revision -> row, or tombstone
    inline       as by-revision, but rows up to 512 bytes are in ``latest`` too
    undo         key -> row           key, end -> end                  revision -> kind, key, row that ended

``by-revision`` is etcd's layout, plus an index of versions that have ended, which keeps a past read at one seek.
``undo`` keeps ``latest`` as it is and appends the rows that ended where they ended.

A layout is a ``State`` that reads it, and functions that write a checkpoint, replay changes and compact. An open store
is made to use it by putting two names of the product in its place (``base.Layout.open``): everything else of a put or
a range is the product's own code. What comes out, and why today's tables stayed: ARCHITECTURE.md.
"""
