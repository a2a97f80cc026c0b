"""One update of the mixture: planned, measured in rounds, decided, guarded, audited, recorded.

In: the live model at an optimizer step (`updater.py` calls the others). Out: a change of mixture
that the dataset obeys, and a `record.UpdateRecord` of what it rests on and what it cost.
"""
