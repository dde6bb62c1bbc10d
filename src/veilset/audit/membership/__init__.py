"""Membership inference against released images and models of a research run."""
