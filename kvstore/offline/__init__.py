"""Work on the files of a closed store."""
