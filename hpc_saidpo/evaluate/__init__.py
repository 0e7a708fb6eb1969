"""Graded rollouts of benchmarks -> accuracy with its interval, pass@k, majority vote (method, step 8)."""
