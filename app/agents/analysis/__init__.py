"""What is found out about a conversation: live, after the call, and by delegates."""
