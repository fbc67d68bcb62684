"""The phone side: the carrier seam, and each carrier in a folder of its own."""
