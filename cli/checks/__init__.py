"""Check data and parts against each other before anything runs."""
