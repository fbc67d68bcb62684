"""Analysis of a conversation: live, after the call, and tasks for delegates."""
