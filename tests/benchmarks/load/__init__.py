"""Load on the API for `bench api`: what is stored, who asks, who listens, who reports."""
