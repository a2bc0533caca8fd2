"""What people see of a run: progress, table, files, plots, one page, and comparisons."""
