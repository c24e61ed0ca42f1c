"""Settings as a mapping: what was there before is kept, and everything can be put back as it was.

python examples/settings_with_undo.py WHERE      data/, unix:///run/app.sock, etcd://host
"""

import sys

import kvstore


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
        settings.restore(before)  # in one step, which is part of the history and can be undone as well
        print("undone:", dict(settings.scan()))
        settings.clear()


if __name__ == "__main__":
    main(sys.argv[1])
