"""Settings and tasks of the systems; each module is imported in its system's virtualenv only."""
