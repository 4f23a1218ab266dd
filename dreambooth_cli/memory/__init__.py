"""How much memory, disk and time a run takes, by arithmetic."""
