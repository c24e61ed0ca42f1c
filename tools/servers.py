"""``kvstore serve`` and ``kvstore replica`` among the other verbs.

They are here for ``kvstore --help``, and for options that are given before the verb. What they do is in ``serve.py``
and ``replica.py``, which load the network.
"""

from __future__ import annotations

from .app import App, Context, Exit


def register(app: App) -> None:
    app.command("serve", takes_all=True, options_metavar="[ETCD'S FLAGS]")(serve)
    app.command("replica", takes_all=True, options_metavar="[FLAGS]")(replica)


def serve(ctx: Context) -> None:
    """Serve the store to every client of etcd's API v3. `kvstore serve --help` has the flags."""
    from .serve import run

    raise Exit(run(_arguments(ctx)))


def replica(ctx: Context) -> None:
    """Follow a source, and serve it read-only; or promote. `kvstore replica --help` has the flags."""
    from .replica import run

    raise Exit(run(_arguments(ctx)))


def _arguments(ctx: Context) -> list[str]:
    """What was given after the verb, and before it."""
    from .command import Settings

    settings = Settings.of(ctx)
    before = [f"--data-dir={settings.data_dir}"] if settings.data_dir else []
    before += [f"--backend={settings.backend}"] if settings.backend else []
    return [*before, *ctx.args]
