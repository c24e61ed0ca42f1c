"""The four top-level folders, and the one package they are installed as.

    kvstore/    -> kvstore              migrations/ -> kvstore.migrations
    backends/   -> kvstore.backends     tools/      -> kvstore.tools

Everything else about the distribution stands in pyproject.toml; only this mapping, which has to list each sub-package,
is computed, so that a new folder is never forgotten. ``tools/lab`` is for work on kvstore itself, and stays behind: it
can be imported from a checkout (an editable install), not from a wheel.

And the part in C, kvstore/native/, which becomes ``kvstore._native``. It is optional: where there is no compiler, or no
Python.h, kvstore is installed without it, and does the same in Python (kvstore/implementation.py).
"""

from pathlib import Path

from setuptools import Extension, find_packages, setup

FOLDERS = {
    "kvstore": "kvstore",
    "kvstore.backends": "backends",
    "kvstore.migrations": "migrations",
    "kvstore.tools": "tools",
}

C_SOURCES = Path("kvstore", "native")
NATIVE = Extension(
    "kvstore._native",
    sources=sorted(map(str, C_SOURCES.glob("*.c"))),
    depends=sorted(map(str, C_SOURCES.glob("*.h"))),
    define_macros=[("Py_LIMITED_API", "0x030b0000")],  # one binary for 3.11 and all that follow (abi3)
    py_limited_api=True,
    extra_compile_args=["-Wall", "-Wextra", "-fvisibility=hidden"],
    optional=True,
)

setup(
    ext_modules=[NATIVE],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
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
