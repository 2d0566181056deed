"""Pictures of measurements, as SVG that is written here and nowhere else.

Invariant: a picture is a pure function of plain values. Cards and reports share these functions; what differs between
them is only how colours are named, fixed in a file of its own or by class in a page with a light and a dark side.
"""
