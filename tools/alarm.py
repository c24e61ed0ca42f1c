"""``kvstore alarm list|disarm``: what keeps writes from being accepted."""

from __future__ import annotations

from kvstore.model import Alarm

from .app import App, Context
from .command import Settings, new_app, write_json, write_line


def register(app: App) -> None:
    group = new_app(
        "Alarms. NOSPACE clears itself once there is room again, unless nospace_policy is sticky."
    )
    group.command("list")(list_)
    group.command("disarm")(disarm)
    app.add_group(group, "alarm")


def list_(ctx: Context) -> None:
    """List the raised alarms."""
    settings = Settings.of(ctx)
    with settings.open(read_only=True) as store:
        _show(settings, store.alarms())


def disarm(ctx: Context) -> None:
    """Clear all alarms."""
    settings = Settings.of(ctx)
    with settings.open_existing() as store:
        _show(settings, tuple(gone for alarm in store.alarms() for gone in store.disarm(alarm)))


def _show(settings: Settings, alarms: tuple[Alarm, ...]) -> None:
    if settings.json:
        write_json([{"memberID": alarm.member_id, "alarm": alarm.alarm} for alarm in alarms])
        return
    for alarm in alarms:
        write_line(f"memberID:{alarm.member_id} alarm:{alarm.alarm}")
