"""What a run takes, by arithmetic."""
