"""Private image sets: load, declare, check, prepare, fetch. `load` returns opaque images; only the gate reads them."""

from veilset.data.check import check
from veilset.data.clean import clean
from veilset.data.draft import init
from veilset.data.faults import Fault
from veilset.data.fetch import fetch
from veilset.data.load import Dataset, load
from veilset.data.prepare import prepare

__all__ = ["Dataset", "Fault", "check", "clean", "fetch", "init", "load", "prepare"]
