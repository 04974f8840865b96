"""Tables and pages from scores."""
