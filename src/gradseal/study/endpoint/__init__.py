"""Whether it helps to know the weights that a run shall end with."""
