"""The recording of a call: what is kept of its sound, and the files that it is kept in."""
