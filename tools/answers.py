"""The engine's responses as JSON values, spelt as ``etcdctl -w json`` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvstore.etcdpb import responses
from kvstore.etcdpb.json import ETCDCTL, Object, Spelling, to_json
from kvstore.etcdpb.messages import etcdserverpb, mvccpb
from kvstore.keyvalue import KeyValue
from kvstore.model import Event, WatchResponse


class Style:
    """How responses are spelt, and what their headers say besides the revision."""

    def __init__(self, spelling: Spelling, header: responses.Header) -> None:
        self._spelling = spelling
        self._header = header

    def text(self, data: bytes) -> str:
        return self._spelling.text(data)

    def answer(self, response: Any) -> Object:
        return to_json(responses.to_message(response, self._header), self._spelling)

    def watch(self, response: WatchResponse, watch_id: int) -> Object:
        encoded = responses.encode_watch(response, watch_id, self._header)
        return to_json(etcdserverpb.WatchResponse.FromString(encoded), self._spelling)

    def key_value(self, kv: KeyValue) -> Object:
        return to_json(mvccpb.KeyValue.FromString(kv.to_protobuf()), self._spelling)

    def events(self, events: Sequence[Event]) -> list[Object]:
        encoded = map(responses.encode_event, events)
        return [to_json(event, self._spelling) for event in map(mvccpb.Event.FromString, encoded)]


def etcdctl_style(cluster_id: int, member_id: int) -> Style:
    return Style(ETCDCTL, responses.Header(cluster_id, member_id))
