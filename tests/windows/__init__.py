"""What Windows does differently with files, simulated on any system."""
