"""Sparse autoencoders at work: what they compute (`topk`). Their files are the business of `formats/`."""
