"""Which etcd we are taken for. What differs between its releases is asked of a ``Dialect``, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Dialect:
    """A minor release of etcd 3, by its number. Dialects compare by age."""

    minor: int
    version: str
    """What the server calls itself. Clients choose what they use by it: kube-apiserver asks for progress of watches
    from 3.4.31 and 3.5.13 on."""

    @property
    def cluster_version(self) -> str:
        return f"3.{self.minor}.0"


V3_4 = Dialect(4, "3.4.37")
V3_5 = Dialect(5, "3.5.32")
V3_6 = Dialect(6, "3.6.13")
DIALECTS = {f"3.{dialect.minor}": dialect for dialect in (V3_4, V3_5, V3_6)}
