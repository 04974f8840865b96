"""Use of a trained net: pictures in, labels out; the card that comes with weights; export to other programs.

This room imports ``scoring``, ``fetch`` and what is below them.
"""
