"""The checks of one GPU by `hpc-saidpo doctor --gpu`: is it right, and how fast is it?"""
