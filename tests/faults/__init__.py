"""What happens when: everything that can go wrong in a run, tried at full length by `python -m tests.faults`."""
