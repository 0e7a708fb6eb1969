"""Explorer: prompts -> K graded rollouts of each question, computed by all ranks (method, steps 1, 5 and 8)."""
