"""The audit's rooms: what is audited and what it was meant to be, what is read of it, rows, and what they come to."""
