"""``cache.py`` on diskcache (``pip install diskcache``). What is too old is not found, and deleted by and by."""

import sys
import time

import diskcache


def render(path: str) -> str:
    print("computing", path)
    return f"<h1>{path}</h1>"


def page(pages: diskcache.Cache, path: str) -> str:
    return str(pages.memoize(expire=2)(render)(path))


def main(folder: str) -> None:
    with diskcache.Cache(folder) as pages:
        print(page(pages, "/"))
        print(page(pages, "/"))
        time.sleep(2.1)
        pages.expire()
        print("evicted:", len(pages), "left")
        print(page(pages, "/"))
        pages.clear()


if __name__ == "__main__":
    main(sys.argv[1])
