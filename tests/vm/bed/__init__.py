"""The test bed of virtual machines: images, guests, and the networks that they are plugged into."""
