"""What `veilset selftest` measures, one file per theme; each file's functions yield `Check`s.

They ask a real gate about small sets made here, as a method would, and compare its answers with what follows from the
accounting by other means: closed forms, published figures, plain NumPy, single-record autograd.
"""
