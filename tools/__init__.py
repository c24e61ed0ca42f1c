"""The ``kvstore`` command, one file per command."""
