"""Power cuts and kills at every call of a workload: what must hold afterwards."""
