"""One suite a file; a suite is a list of independent cells."""
