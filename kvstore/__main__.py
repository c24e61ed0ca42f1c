"""``python -m kvstore``: the command line, which is a package beside this one (see tools/main.py)."""

from importlib import import_module

if __name__ == "__main__":
    import_module("kvstore.tools.main").main()
