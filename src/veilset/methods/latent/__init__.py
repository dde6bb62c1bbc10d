"""Autoencoders, and densities of their codes."""
