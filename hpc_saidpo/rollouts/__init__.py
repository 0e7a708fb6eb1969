"""Explorer: prompts -> K graded rollouts of each question, spread over the ranks (method, steps 1, 5 and 8)."""
