"""Keys that a caller presses, and who waits for them: entries, consent, menus."""
