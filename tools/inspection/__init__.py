"""Looking into stores: ours, our snapshots, and those of other programs.

    sources    any path as a read-only store
    values     what a value is: a Kubernetes object, JSON, text, bytes
    survey     one walk through a store: sizes by prefix, largest and hottest keys, growth
    page       the survey as one HTML file that can be browsed offline (page_script, page_style: its parts)

``tools/inspect_store.py`` makes the command ``kvstore inspect`` from them.
"""
