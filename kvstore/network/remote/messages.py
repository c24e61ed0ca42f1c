"""etcd's answers as far as a client reads them: rows stay bytes, which is what ``KeyValues`` are made of.

protobuf's parser in C cuts an answer into its rows without making an object of each.
"""

from __future__ import annotations

from typing import Any

from kvstore.protobuf import Messages

TABLE = """
package remote
Header: cluster_id=1 uint64, member_id=2 uint64, revision=3 int64, raft_term=4 uint64
Plain: header=1 Header
Range: header=1 Header, kvs=2 bytes*, more=3 bool, count=4 int64
Put oneof prev: header=1 Header, prev_kv=2 bytes?
DeleteRange: header=1 Header, deleted=2 int64, prev_kvs=3 bytes*
ResponseOp oneof response: response_range=1 Range?, response_put=2 Put?, response_delete_range=3 DeleteRange?,
    response_txn=4 bytes?
Txn: header=1 Header, succeeded=2 bool, responses=3 ResponseOp*
"""
"""A transaction inside another stays bytes: protobuf decodes 100 levels of messages, a server answers more."""

remote: Any = Messages(TABLE).package("remote")
