"""Question pools and benchmarks: from files of many formats, or made."""
