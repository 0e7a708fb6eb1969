"""The rollout engine: prompts -> K responses each, by one of several engines behind one function."""
