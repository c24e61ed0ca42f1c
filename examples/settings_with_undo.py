"""Settings as a mapping: what was there before is kept, and everything can be put back as it was.

python examples/settings_with_undo.py WHERE      data/, unix:///run/app.sock, etcd://host
"""

import sys

import kvstore
from kvstore import ops


def undo(store: kvstore.Store, revision: int) -> None:
    """All settings as they were, in one step, which is part of the history and can be undone as well."""
    changes = store.diff(revision, prefix=b"settings/")
    back = [
        ops.put(change.key, change.before.value) if change.before else ops.delete(change.key)
        for change in changes
    ]
    store.txn(success=back)


def main(where: str) -> None:
    with kvstore.connect(where) if "://" in where else kvstore.open(where) as store:
        settings = kvstore.MapView(store, "settings/", values=kvstore.JSON)
        settings["theme"] = "dark"
        before = settings.put("fonts", ["mono"])
        settings["theme"] = "light"
        settings["size"] = 12
        del settings["fonts"]
        print("now:", dict(settings.scan()))
        print("theme:", [version.value for version in settings.history("theme")])
        for change in settings.diff(before):
            print("changed:", change.key, change.before, change.after)
        undo(store, before)
        print("undone:", dict(settings.scan()))
        settings.clear()


if __name__ == "__main__":
    main(sys.argv[1])
