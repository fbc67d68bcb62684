"""Speech on this machine: voice activity, recognizer, synthesizer, their worker processes."""
