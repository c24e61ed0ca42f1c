"""``kvstore lease grant|revoke|keep-alive|timetolive|list``: keys that expire."""

from __future__ import annotations

from typing import Annotated

from .app import App, Argument, Context, Exit, Option
from .command import Settings, engine_of, etcdctl_style_of, new_app, readable, write_json, write_line
from .requests import lease_id


def register(app: App) -> None:
    group = new_app("Leases: keys that expire. Ids are hexadecimal, as etcdctl's.")
    group.command("grant")(grant)
    group.command("revoke")(revoke)
    group.command("keep-alive")(keep_alive)
    group.command("timetolive")(time_to_live)
    group.command("list")(list_)
    app.add_group(group, "lease")


def _hex(lease: int) -> str:
    return f"{lease & (1 << 64) - 1:016x}"


def grant(
    ctx: Context,
    ttl: Annotated[int, Argument(help="Seconds.")],
    ident: Annotated[str, Option("--id", help="Id of the new lease. [default: random]")] = "0",
) -> None:
    """Grant a lease.

    Example: kvstore lease grant 60, then kvstore put key value --lease ID
    """
    settings = Settings.of(ctx)
    with settings.open() as store:
        response = store.grant_lease(ttl, lease_id(ident))
        if settings.json:
            write_json(etcdctl_style_of(store).answer(response))
        else:
            write_line(f"lease {_hex(response.id)} granted with TTL({response.ttl}s)")


def revoke(
    ctx: Context,
    lease: Annotated[str, Argument()],
    dry_run: Annotated[
        bool, Option("--dry-run", help="Report which keys would be deleted, without doing it.")
    ] = False,
) -> None:
    """End a lease and delete its keys."""
    settings = Settings.of(ctx)
    if dry_run:
        _show_time_to_live(settings, lease, keys=True)
        return
    with settings.open_existing() as store:
        response = store.revoke_lease(lease_id(lease))
        if settings.json:
            write_json(etcdctl_style_of(store).answer(response))
        else:
            write_line(f"lease {_hex(lease_id(lease))} revoked")


def keep_alive(ctx: Context, lease: Annotated[str, Argument()]) -> None:
    """Renew a lease, once."""
    settings = Settings.of(ctx)
    with settings.open_existing() as store:
        response = engine_of(store).lease_keep_alive(lease_id(lease))
    if settings.json:
        write_json({"ID": response.id, "TTL": response.ttl})
    elif response.ttl:
        write_line(f"lease {_hex(response.id)} keepalived with TTL({response.ttl})")
    else:
        write_line(f"lease {_hex(response.id)} expired or revoked.")
    if not response.ttl:
        raise Exit(1)


def time_to_live(
    ctx: Context,
    lease: Annotated[str, Argument()],
    keys: Annotated[bool, Option("--keys", help="Also print the attached keys.")] = False,
) -> None:
    """Show how much time a lease has left."""
    _show_time_to_live(Settings.of(ctx), lease, keys=keys)


def _show_time_to_live(settings: Settings, lease: str, *, keys: bool) -> None:
    with settings.open(read_only=True) as store:
        response = store.lease_time_to_live(lease_id(lease), keys=keys)
    shown = ", ".join(readable(key) for key in response.keys)
    if settings.json:
        left = {"id": response.id, "ttl": response.ttl, "granted-ttl": response.granted_ttl}
        write_json({**left, "keys": [key.decode("latin-1") for key in response.keys]})
    elif response.granted_ttl:
        text = (
            f"lease {_hex(response.id)} granted with TTL({response.granted_ttl}s), remaining({response.ttl}s)"
        )
        write_line(text + (f", attached keys([{shown}])" if keys else ""))
    else:
        write_line(f"lease {_hex(response.id)} already expired")


def list_(ctx: Context) -> None:
    """List all leases, the next to expire first."""
    settings = Settings.of(ctx)
    with settings.open(read_only=True) as store:
        leases = store.leases()
    if settings.json:
        write_json({"leases": [{"id": lease} for lease in leases]})
        return
    write_line(f"found {len(leases)} leases")
    for lease in leases:
        write_line(_hex(lease))
