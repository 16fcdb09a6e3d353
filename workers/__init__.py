"""The training side of emascale: everything that runs on the cluster. Never imports fastapi, sqlmodel or service."""
