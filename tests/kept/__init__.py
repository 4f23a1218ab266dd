"""Homes that released versions made, kept as they were left, so that every later one is held to them."""
