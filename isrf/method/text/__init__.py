"""Texts: the torch-free encoder and the phrases that short texts share. It may import `isrf.contract`."""
