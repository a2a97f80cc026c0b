"""One script for each claim of the paper, at small scale: `python eval/reproduce/NAME.py`."""
