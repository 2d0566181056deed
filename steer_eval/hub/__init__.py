"""The edge to the Hugging Face Hub: addresses, snapshots of commits, and what can go wrong on the way.

Everything else sees folders, and files that were left on the Hub; huggingface_hub is imported only once there is
something to fetch.
"""
