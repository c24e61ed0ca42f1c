"""A short conversation with etcd 3.4.23, recorded for the demo: two nodes, an election, some pods, a lease that ends.

In the format of ``conversation.py``; a long line continues in the next ones, which begin with a space.
"""

from __future__ import annotations

SHOP = r"""
{"op": "grant", "request": {"ID": 41, "TTL": 86400}, "response": {"header": {"revision": 1}, "ID": 41,
 "TTL": 86400}}
{"op": "put", "request": {"key": "nodes/alpha", "value": "ready", "lease": 41},
 "response": {"header": {"revision": 2}}}
{"op": "put", "request": {"key": "nodes/beta", "value": "ready", "lease": 41},
 "response": {"header": {"revision": 3}}}
{"op": "txn", "request": {"compare": [{"key": "leader", "target": "VERSION", "result": "EQUAL",
 "version": 0}], "success": [{"request_put": {"key": "leader", "value": "alpha", "lease": 41}}],
 "failure": [{"request_range": {"key": "leader"}}]}, "response": {"header": {"revision": 4},
 "succeeded": true, "responses": [{"response_put": {"header": {"revision": 4}}}]}}
{"op": "txn", "request": {"compare": [{"key": "leader", "target": "VERSION", "result": "EQUAL",
 "version": 0}], "success": [{"request_put": {"key": "leader", "value": "beta"}}],
 "failure": [{"request_range": {"key": "leader"}}]}, "response": {"header": {"revision": 4},
 "responses": [{"response_range": {"header": {"revision": 4}, "kvs": [{"key": "leader",
 "create_revision": 4, "mod_revision": 4, "version": 1, "value": "alpha", "lease": 41}], "count": 1}}]}}
{"op": "put", "request": {"key": "registry/pods/shop/web-1", "value": "pending"},
 "response": {"header": {"revision": 5}}}
{"op": "put", "request": {"key": "registry/pods/shop/web-2", "value": "pending"},
 "response": {"header": {"revision": 6}}}
{"op": "put", "request": {"key": "registry/pods/shop/db-1", "value": "pending"},
 "response": {"header": {"revision": 7}}}
{"op": "range", "request": {"key": "registry/pods/shop/", "range_end": "registry/pods/shop0"},
 "response": {"header": {"revision": 7}, "kvs": [{"key": "registry/pods/shop/db-1",
 "create_revision": 7, "mod_revision": 7, "version": 1, "value": "pending"},
 {"key": "registry/pods/shop/web-1", "create_revision": 5, "mod_revision": 5, "version": 1,
 "value": "pending"}, {"key": "registry/pods/shop/web-2", "create_revision": 6, "mod_revision": 6,
 "version": 1, "value": "pending"}], "count": 3}}
{"op": "put", "request": {"key": "registry/pods/shop/web-1", "value": "running on alpha",
 "prev_kv": true}, "response": {"header": {"revision": 8},
 "prev_kv": {"key": "registry/pods/shop/web-1", "create_revision": 5, "mod_revision": 5, "version": 1,
 "value": "pending"}}}
{"op": "put", "request": {"key": "registry/pods/shop/db-1", "value": "running on beta",
 "prev_kv": true}, "response": {"header": {"revision": 9}, "prev_kv": {"key": "registry/pods/shop/db-1",
 "create_revision": 7, "mod_revision": 7, "version": 1, "value": "pending"}}}
{"op": "txn", "request": {"compare": [{"key": "registry/pods/shop/web-2", "target": "MOD",
 "result": "EQUAL", "mod_revision": 6}], "success": [{"request_put": {"key": "registry/pods/shop/web-2",
 "value": "running on beta"}}, {"request_put": {"key": "nodes/beta", "value": "busy",
 "ignore_lease": true}}], "failure": []}, "response": {"header": {"revision": 10}, "succeeded": true,
 "responses": [{"response_put": {"header": {"revision": 10}}},
 {"response_put": {"header": {"revision": 10}}}]}}
{"op": "put", "request": {"key": "registry/pods/shop/web-1", "value": "running on beta",
 "prev_kv": true}, "response": {"header": {"revision": 11},
 "prev_kv": {"key": "registry/pods/shop/web-1", "create_revision": 5, "mod_revision": 8, "version": 2,
 "value": "running on alpha"}}}
{"op": "range", "request": {"key": "registry/pods/shop/", "range_end": "registry/pods/shop0",
 "sort_order": "DESCEND", "sort_target": "MOD"}, "response": {"header": {"revision": 11},
 "kvs": [{"key": "registry/pods/shop/web-1", "create_revision": 5, "mod_revision": 11, "version": 3,
 "value": "running on beta"}, {"key": "registry/pods/shop/web-2", "create_revision": 6,
 "mod_revision": 10, "version": 2, "value": "running on beta"}, {"key": "registry/pods/shop/db-1",
 "create_revision": 7, "mod_revision": 9, "version": 2, "value": "running on beta"}], "count": 3}}
{"op": "range", "request": {"key": "registry/pods/shop/web-1", "revision": 6},
 "response": {"header": {"revision": 11}, "kvs": [{"key": "registry/pods/shop/web-1",
 "create_revision": 5, "mod_revision": 5, "version": 1, "value": "pending"}], "count": 1}}
{"op": "put", "request": {"key": "registry/pods/shop/web-3", "value": "running", "ignore_value": true},
 "error": {"code": 3, "message": "etcdserver: value is provided"}}
{"op": "delete", "request": {"key": "registry/pods/shop/web-1", "prev_kv": true},
 "response": {"header": {"revision": 12}, "deleted": 1, "prev_kvs": [{"key": "registry/pods/shop/web-1",
 "create_revision": 5, "mod_revision": 11, "version": 3, "value": "running on beta"}]}}
{"op": "range", "request": {"key": "registry/pods/shop/", "range_end": "registry/pods/shop0",
 "revision": 9, "keys_only": true}, "response": {"header": {"revision": 12},
 "kvs": [{"key": "registry/pods/shop/db-1", "create_revision": 7, "mod_revision": 9, "version": 2},
 {"key": "registry/pods/shop/web-1", "create_revision": 5, "mod_revision": 8, "version": 2},
 {"key": "registry/pods/shop/web-2", "create_revision": 6, "mod_revision": 6, "version": 1}],
 "count": 3}}
{"op": "revoke", "request": {"ID": 41}, "response": {"header": {"revision": 13}}}
{"op": "range", "request": {"key": "leader"}, "response": {"header": {"revision": 13}}}
{"op": "put", "request": {"key": "nodes/alpha", "value": "drained", "lease": 41}, "error": {"code": 5,
 "message": "etcdserver: requested lease not found"}}
{"op": "compact", "request": {"revision": 4}, "response": {"header": {"revision": 13}}}
{"op": "range", "request": {"key": "leader", "revision": 3}, "error": {"code": 11,
 "message": "etcdserver: mvcc: required revision has been compacted"}}
{"op": "put", "request": {"key": "registry/pods/shop/web-1", "value": "pending"},
 "response": {"header": {"revision": 14}}}
{"op": "range", "request": {"key": "\u0000", "range_end": "\u0000"},
 "response": {"header": {"revision": 14}, "kvs": [{"key": "registry/pods/shop/db-1",
 "create_revision": 7, "mod_revision": 9, "version": 2, "value": "running on beta"},
 {"key": "registry/pods/shop/web-1", "create_revision": 14, "mod_revision": 14, "version": 1,
 "value": "pending"}, {"key": "registry/pods/shop/web-2", "create_revision": 6, "mod_revision": 10,
 "version": 2, "value": "running on beta"}], "count": 3}}
"""
