"""HTML pages of evaluations, comparisons and single cases."""
