"""The round loop: plan a cohort, collect its updates, release the next model, commit it once."""
