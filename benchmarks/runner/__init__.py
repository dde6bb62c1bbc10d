"""What runs suites, and what several of them share."""
