"""The four top-level folders, and the one package they are installed as.

    kvstore/    -> kvstore              migrations/ -> kvstore.migrations
    backends/   -> kvstore.backends     tools/      -> kvstore.tools

Everything else about the distribution stands in pyproject.toml; only this mapping, which has to list each sub-package,
is computed, so that a new folder is never forgotten. ``tools/lab`` is for work on kvstore itself, and stays behind: it
can be imported from a checkout (an editable install), not from a wheel.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "kvstore": "kvstore",
    "kvstore.backends": "backends",
    "kvstore.migrations": "migrations",
    "kvstore.tools": "tools",
}

setup(
    package_dir=dict(FOLDERS),
    packages=[
        name
        for package, folder in FOLDERS.items()
        for name in [
            package,
            *(f"{package}.{sub}" for sub in find_packages(folder, exclude=["lab", "lab.*"])),
        ]
    ],
)
