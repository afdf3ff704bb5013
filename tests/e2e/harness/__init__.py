"""What the end-to-end tests stand on: the lab, raw frames, traffic tools and the books."""
