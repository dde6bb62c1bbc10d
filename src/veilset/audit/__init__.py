"""Attacks on our own claims: each gives a lower bound on epsilon, to stand beside the accountant's upper bound."""
