"""The mind of a phone call: takes events, gives actions; and the parts it is made of. Pure."""
