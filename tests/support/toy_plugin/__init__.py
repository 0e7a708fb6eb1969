"""A package of a user: a rule for `sampler.rule` and verifiers for `pool.verifier`. It is no part of hpc_saidpo."""
