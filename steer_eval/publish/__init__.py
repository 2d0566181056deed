"""Publishing a study: from two folders to two repos of the Hub.

Everything up to the plan only reads: the folders, and what the Hub has. Only `push.py` writes, and only to the Hub.
"""
