"""``kvstore hashkv``: etcd's checksum of the key space, to compare a store with another one or with an etcd."""

from __future__ import annotations

from typing import Annotated

from .app import App, Context, Option
from .command import Settings, etcdctl_style_of, write_json, write_line


def register(app: App) -> None:
    app.command("hashkv")(hashkv)


def hashkv(
    ctx: Context,
    rev: Annotated[int, Option(help="Up to this revision; 0: the newest.")] = 0,
) -> None:
    """Print etcd's HashKV of the store."""
    settings = Settings.of(ctx)
    with settings.open(read_only=True) as store:
        response = store.hash_kv(rev)
        if settings.json:
            write_json(etcdctl_style_of(store).answer(response))
        else:
            write_line(f"{settings.where}, {response.hash}")
