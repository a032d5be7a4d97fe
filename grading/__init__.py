"""How the assignments are generated from their masters, and how submissions are graded: for teachers, not installed."""
