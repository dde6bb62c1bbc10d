"""One self-contained HTML page from a run or release folder: verdict, samples, claim, measures, ledger."""
