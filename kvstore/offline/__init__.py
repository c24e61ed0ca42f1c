"""Work on the files of a store that nobody has open."""
