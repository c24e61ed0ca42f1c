"""Makes ``kvstore/decoding/kubernetes_types.py`` from the published protobuf definitions of Kubernetes.

    python -m kvstore.tools.lab.kubernetes_types FOLDER > kvstore/decoding/kubernetes_types.py

FOLDER holds checkouts of kubernetes/api, apimachinery, apiextensions-apiserver and kube-aggregator, of which each
``generated.proto`` is read, and the ``types.go`` beside it: only that says which messages JSON has no level for
(their ``json`` tag is empty).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = re.compile(
    r"alpha|^(admission|apidiscovery|authentication|authorization|imagepolicy|testapigroup|lifecycle)\."
    r"|^(apps|extensions|flowcontrol|apiregistration|resource)\.v1beta"
)
"""Packages whose objects are not stored, or not any more."""
NEVER_STORED = re.compile(r"(List|Options|Review|Table|TableRow|WatchEvent|PartialObjectMetadata|Binding)$")
SCALARS = {
    "int32": "int",
    "int64": "int",
    "uint32": "int",
    "uint64": "int",
    "sint32": "int",
    "double": "double",
}
WIDTH = 110
_FIELD = re.compile(r"^  (?:optional |repeated )?(map<string, [\w.]+>|[\w.]+) (\w+) = (\d+);", re.MULTILINE)
_REPEATED = re.compile(r"^  repeated [\w.]+ (\w+) =", re.MULTILINE)
_MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r'json:"(?:,inline)?" protobuf:.*?name=(\w+)')

HEAD = '''"""The fields of Kubernetes' built-in objects, as its published protobuf definitions number them.

Made by ``tools/lab/kubernetes_types.py`` from the definitions of {version}, by the
Kubernetes Authors, under the Apache License 2.0.

    package core.v1
    Pod: metadata=1 meta.v1.ObjectMeta, spec=2 PodSpec, ...

``*`` repeated, ``{{}}`` a map from strings, ``<`` a message whose fields JSON shows as those of the message around it.
An indented line continues the one before.
"""

TABLE = """
'''


def short(package: str) -> str:
    """``k8s.io.api.core.v1`` as ``core.v1``."""
    for prefix in (
        "k8s.io.api.",
        "k8s.io.apimachinery.pkg.apis.",
        "k8s.io.apimachinery.pkg.api.",
        "k8s.io.apimachinery.pkg.util.",
        "k8s.io.apimachinery.pkg.",
        "k8s.io.apiextensions_apiserver.pkg.apis.",
        "k8s.io.kube_aggregator.pkg.apis.",
    ):
        package = package.removeprefix(prefix)
    return package


def messages(folder: Path) -> dict[str, dict[str, str]]:
    """Message -> field -> ``number type``, names with their package."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(folder.rglob("generated.proto")):
        text = path.read_text()
        match = re.search(r"^package (.*);", text, re.MULTILINE)
        package = short(match[1]) if match else ""
        if LEFT_OUT.search(package):
            continue
        types = path.with_name("types.go")
        inline = dict(_STRUCT.findall(types.read_text())) if types.exists() else {}
        for name, body in _MESSAGE.findall(text):
            inlined = set(_INLINE.findall(inline.get(name, "")))
            repeated = set(_REPEATED.findall(body))
            found[f"{package}.{name}"] = {
                field: number + " " + _type(kind, package, field in repeated, field in inlined)
                for kind, field, number in _FIELD.findall(body)
            }
    return found


def _type(kind: str, package: str, repeated: bool, inline: bool) -> str:
    if kind.startswith("map<"):
        return _type(kind[len("map<string, ") : -1], package, False, False) + "{}"
    if "." in kind:
        head, _, name = kind.lstrip(".").rpartition(".")
        full = f"{short(head)}.{name}"
        kind = full.removeprefix(f"{package}.")
    return SCALARS.get(kind, kind) + "*" * repeated + "<" * inline


def stored(found: dict[str, dict[str, str]]) -> set[str]:
    """The objects, and whatever they are made of."""
    wanted = [
        name
        for name, fields in found.items()
        if fields.get("metadata") == "1 meta.v1.ObjectMeta" and not NEVER_STORED.search(name)
    ]
    reached: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in reached and name in found:
            reached.add(name)
            wanted += references(name, found[name])
    return reached


def references(name: str, fields: dict[str, str]) -> Iterator[str]:
    package = name.rpartition(".")[0]
    for entry in fields.values():
        kind = entry.split()[1].rstrip("*<{}")
        yield kind if "." in kind else f"{package}.{kind}"


def table(found: dict[str, dict[str, str]], names: set[str]) -> Iterator[str]:
    last = ""
    for name in sorted(names):
        package, _, own = name.rpartition(".")
        if package != last:
            yield f"package {package}"
            last = package
        line = f"{own}:"
        for field, entry in found[name].items():
            number, kind = entry.split()
            word = f" {field}={number} {kind},"
            if len(line) + len(word) > WIDTH:
                yield line
                line = "   "
            line += word
        yield line.rstrip(",")


if __name__ == "__main__":
    everything = messages(Path(sys.argv[1]))
    print(HEAD.format(version=sys.argv[2]), end="")
    print("\n".join(table(everything, stored(everything))))
    print('"""')
