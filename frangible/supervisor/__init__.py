"""The process that watches one run from outside, and reverts whatever happens."""
