"""A real etcd's services by its JSON gateway, asked as ``fake_call.Client`` asks ours."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from kvstore.errors import Code
from kvstore.etcdpb.json import from_json, to_json
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.services import TABLE
from tests.network.fake_call import PATIENCE_SECONDS, Refused

_PATHS = {
    "etcdserverpb.KV": ("kv/", {"DeleteRange": "deleterange", "Compact": "compaction"}),
    "etcdserverpb.Lease": ("lease/", {"LeaseGrant": "grant", "LeaseRevoke": "revoke"}),
    "etcdserverpb.Cluster": (
        "cluster/member/",
        {f"Member{name}": name.lower() for name in ("List", "Add", "Remove", "Update", "Promote")},
    ),
    "etcdserverpb.Maintenance": ("maintenance/", {"MoveLeader": "transfer-leadership"}),
    "v3lockpb.Lock": ("lock/", {}),
    "v3electionpb.Election": ("election/", {}),
}


class Gateway:
    """A client of the gateway at a url."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, request: Any = None) -> Any:
        """The answer to a unary call; raises ``Refused``."""
        method = TABLE[path]
        if method.service == "etcdserverpb.Cluster":
            self.ask("/etcdserverpb.KV/Range", pb.RangeRequest(key=b"anything"))  # etcd_servers.SETTLING
        with self.open(path, request) as response:
            return from_json(method.response, json.load(response))

    def open(self, path: str, request: Any = None) -> Any:
        """The HTTP response; raises ``Refused``."""
        method = TABLE[path]
        folder, names = _PATHS[method.service]
        url = f"{self._url}/v3/{folder}{names.get(method.name, method.name.lower())}"
        body = json.dumps({} if request is None else to_json(request)).encode()
        try:
            return urllib.request.urlopen(url, body, timeout=PATIENCE_SECONDS)
        except urllib.error.HTTPError as error:
            said = json.load(error)
            raise Refused(Code(said["code"]), said["message"]) from None
