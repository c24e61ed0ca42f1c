"""Writing: from a request to the disk."""
