"""What leaves for other programs, one file a format: it writes, opens again by a reader that is not ours, and compares."""
