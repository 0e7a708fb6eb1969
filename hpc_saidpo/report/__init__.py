"""The report of a run, explanations of its draws, and exports of its pairs and rollouts."""
