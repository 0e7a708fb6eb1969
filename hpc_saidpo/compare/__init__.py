"""Many runs under one root -> a table of their values, one picture, one HTML page. Runs are only read."""
