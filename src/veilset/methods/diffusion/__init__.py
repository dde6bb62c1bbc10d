"""Denoisers trained on private records."""
