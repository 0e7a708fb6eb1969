"""Question pools and benchmarks: read from files of many formats, or generated."""
