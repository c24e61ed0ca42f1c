"""Looking into stores: ours, our snapshots, and those of other programs.

    sources    any path as a read-only store
    by_key     a store's versions in key order, in bounded memory; tree: keys by prefix
    survey     one walk through a store: sizes by prefix, largest and hottest keys, who wrote most, growth
    differences, changed   what differs between revisions or stores; between two values
    access     users, roles and permissions
    page       the survey as one HTML file that can be browsed offline

What a value is, and how the page looks and works, is shared with the live page: ``kvstore.decoding``, ``kvstore.ui``.

``tools/inspect_store.py`` makes the command ``kvstore inspect`` from them.
"""
