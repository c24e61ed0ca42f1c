"""etcd's own tests, written in Go, run against ``kvstore serve``."""
