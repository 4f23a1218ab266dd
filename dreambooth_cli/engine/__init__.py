"""How the model is loaded, trained and sampled. torch lives here; products are yielded, nothing is printed."""
