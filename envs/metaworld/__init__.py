"""Meta-World: a robot arm that manipulates objects, and its rewards."""
