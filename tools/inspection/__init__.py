"""Looking into stores: ours, our snapshots, and those of other programs.

    sources    any path as a read-only store
    values     what a value is: a Kubernetes object, JSON, text, bytes
               (kubernetes, with kubernetes_types; generic_protobuf; yaml_text)
    by_key     a store's versions in key order, in bounded memory; tree: keys by prefix
    survey     one walk through a store: sizes by prefix, largest and hottest keys, who wrote most, growth
    differences, changed   what differs between revisions or stores; between two values
    access     users, roles and permissions
    page       the survey as one HTML file that can be browsed offline (page_script, page_style: its parts)

``tools/inspect_store.py`` makes the command ``kvstore inspect`` from them.
"""
