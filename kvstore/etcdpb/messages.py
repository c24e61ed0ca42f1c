"""The classes of etcd's messages, as its API sends and receives them: ``etcdserverpb.PutRequest`` and so on."""

from __future__ import annotations

from kvstore.protobuf import Messages

from .table import TABLE

MESSAGES = Messages(TABLE)

mvccpb = MESSAGES.package("mvccpb")
authpb = MESSAGES.package("authpb")
etcdserverpb = MESSAGES.package("etcdserverpb")
v3lockpb = MESSAGES.package("v3lockpb")
v3electionpb = MESSAGES.package("v3electionpb")
shallow = MESSAGES.package("shallow")
