"""Trunkline: phone calls, answered by a voice model or by the embedded offline engine."""
