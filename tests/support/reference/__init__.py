"""What writes the pages of docs/reference that are made from the code: `python -m tests.support.reference`."""
