"""What Windows does otherwise with files, played on any system."""
