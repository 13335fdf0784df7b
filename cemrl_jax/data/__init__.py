"""What is collected and how it is kept: rollouts, replay, statistics, tasks."""
