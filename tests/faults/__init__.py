"""Everything that can go wrong in a run, and what happens then; tried in full by `python -m tests.faults`."""
