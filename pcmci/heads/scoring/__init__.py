"""From saved predictions to scores and their intervals, without torch."""
