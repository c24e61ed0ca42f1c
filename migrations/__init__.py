"""Steps between on-disk formats, and other stores' files in and out."""
