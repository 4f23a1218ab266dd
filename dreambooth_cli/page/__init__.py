"""A run on one page: HTML that needs no network, no library and no other files."""
