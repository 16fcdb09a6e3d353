"""The HTTP side: takes jobs, keeps their state in a database, and reconciles it with a Ray cluster."""
