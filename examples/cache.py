"""A cache: what was computed once is there for two seconds, and then goes by itself.

python examples/cache.py WHERE      data/, unix:///run/app.sock, etcd://host
"""

import sys
import time

import kvstore


def render(path: str) -> str:
    print("computing", path)
    return f"<h1>{path}</h1>"


def page(pages: kvstore.MapView[str, str], path: str) -> str:
    return pages.get_or_put(path, lambda: render(path), ttl=2)


def main(where: str) -> None:
    with kvstore.connect(where) if "://" in where else kvstore.open(where) as store:
        pages = kvstore.MapView(store, "pages/")
        print(page(pages, "/"))
        print(page(pages, "/"))
        while "/" in pages:
            time.sleep(0.1)
        print("evicted:", len(pages), "left")
        print(page(pages, "/"))
        pages.clear()


if __name__ == "__main__":
    main(sys.argv[1])
