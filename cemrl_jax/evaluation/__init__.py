"""How a policy is judged."""
