"""CEMRL: the encoder that infers the task, its losses, its phases."""
