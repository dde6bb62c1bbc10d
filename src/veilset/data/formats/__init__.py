"""A reader for each layout of files, and how a path is told to have one."""
