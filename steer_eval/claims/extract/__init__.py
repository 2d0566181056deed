"""Claims in the words of a card or report: from its text to data.

Invariant: every number of a text is accounted for: it is checked, it says where another is to be found, or it is listed
as not understood. Nothing is dropped, so that the share that is understood is a figure.
"""
