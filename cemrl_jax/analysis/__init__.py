"""Pictures of what was learnt: numpy and matplotlib only."""
