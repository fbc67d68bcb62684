"""Rules for what is said: the rules, the runner that asks them, the watch over the words."""
