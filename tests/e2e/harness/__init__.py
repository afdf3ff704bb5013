"""What the end-to-end tests use: the lab, raw frames, traffic tools and packet accounting."""
