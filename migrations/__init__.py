"""Steps between on-disk formats, and the import and export of other stores' files."""
