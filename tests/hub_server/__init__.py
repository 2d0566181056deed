"""A Hub on localhost: the HTTP API that huggingface_hub, datasets, transformers and git use, over git repositories.

Repositories are bare ones, large files are in the on-disk layout of git-lfs, and clients are the real ones, in
processes of their own. What the API is like was taken from the requests of huggingface_hub 2.4 and from what it reads
of the answers; how the public Hub behaves beyond that is not known here, and nothing more is claimed.
"""

from .routes_jobs import Job
from .server import HubServer
from .web import Arrived, Cut, Refusal, Request

__all__ = ["Arrived", "Cut", "HubServer", "Job", "Refusal", "Request"]
