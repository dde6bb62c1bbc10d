"""Which method to take for declared facts, from measured figures that the package carries."""
