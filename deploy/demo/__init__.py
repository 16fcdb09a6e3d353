"""Two jobs share a small cluster: the first gives way to the second and grows back, and loses nothing."""
