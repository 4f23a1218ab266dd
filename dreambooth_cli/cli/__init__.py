"""Words in, pictures out: Typer commands, the interview, the two consoles."""
