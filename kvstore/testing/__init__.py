"""For tests: those of programs that use kvstore, those of third-party backends, and our own.

    backend_contract   what every backend must do, as tests to inherit
    plugin             fixtures that pytest finds by itself: ``kvstore_store``, ``kvstore_async_store``,
                       ``kvstore_clock``, ``kvstore_server``, ``kvstore_dir``
    fake_clock         a clock that stands still until it is advanced: for the option ``clock``
    faults             a full disk, a sync that fails or is slow, a power cut: for as long as a block runs
    strategies         hypothesis strategies: keys, values, ranges, transactions
    recording_disk     a disk that fails, loses power, and remembers what was synced
    disk_images        what such a power cut may leave
    crashes            a workload crashed at each of its calls to that disk

Nothing else in kvstore imports this. ``backend_contract`` and ``plugin`` need pytest, ``strategies`` needs
hypothesis.
"""
