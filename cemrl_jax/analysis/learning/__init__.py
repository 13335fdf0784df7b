"""What was learnt: runs of all experiments as JSON, and from that tables and pictures.

A file per experiment holds every evaluation of every seed, and where it comes from. The
tables and the pictures are made of the files alone, so that anyone can make them again.
Those of the presets as they are now come first, and apart from what else was tried.
"""
