"""Turning a cohort's packed updates into the next model, in memory that does not grow with the cohort."""
