"""The classes of etcd's messages as its log and its files have them: ``string`` fields are bytes.

Go did not check their encoding for years, so a decoder that does would refuse good files.
"""

from __future__ import annotations

from kvstore.protobuf import Messages

from .table import TABLE

MESSAGES = Messages(TABLE, strings_are_bytes=True)

authpb = MESSAGES.package("authpb")
etcdserverpb = MESSAGES.package("etcdserverpb")
