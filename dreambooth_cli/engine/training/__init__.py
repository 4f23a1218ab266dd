"""From training pictures to weights: the loop, and what each of its steps is made of."""
