"""Compare the runs under one root."""
