"""Attacks on the gate by itself: does one answer tell a unit by more than it was paid for?"""
