"""Long runs. Each has a short form among the tests; `make soak-...` runs it in full."""
