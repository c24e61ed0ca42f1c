"""etcd's own files, read and written without etcd.

    bbolt_page      the database file's pages, as pure functions over bytes
    bbolt_read      a whole database file: buckets, seeks, scans, the trailing SHA-256
    bbolt_search    rows by their values, found in the raw file first
    bbolt_check     every consistency rule of a database file, violations reported one by one
    bbolt_write     a database file from sorted rows, streaming
    wal_frame       the log's frames and records, as pure functions over bytes
    wal_read        log segments in order, chained checksums, torn tails distinguished from damage
    wal_content     what a log says: metadata, hard state, entries; and the repaired copy
    messages        etcd's messages (kvstore.etcdpb) as its log and files have them: strings are bytes
    beside_keys     what is stored besides keys, as our rows, and back
    carried         rows of buckets that are kept verbatim
    rows            the contents of the buckets: names, keys and values of rows
    hash_kv         etcd's HashKV over rows
    etcd_file       one database file as an etcd store at its last commit
    data_dir        a whole data directory: that file, and the log entries after it
    membership      the members: which configuration changes of the log were carried out
    log_replay      the other entries, decided again
    import_store    importing; export_store: exporting

Nothing here changes what it reads. Importing the package loads nothing; import what you need from
the modules.
"""
