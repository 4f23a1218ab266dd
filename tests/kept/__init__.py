"""Home folders that released versions made, kept as they left them: every later version must be able to go on with them."""
