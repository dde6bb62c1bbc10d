"""What published private image generators cost by our accountants; no claim of ours. `veilset.claim` is its entry."""
