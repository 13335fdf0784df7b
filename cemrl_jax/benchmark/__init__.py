"""How fast the program is, and how fast it could be."""
