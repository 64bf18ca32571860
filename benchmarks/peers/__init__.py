"""The servers that Lectern is measured against: one file each, all around the same codec.

Each file says at its top, in the form of PEP 723, what its environment needs beside ``codec.py``'s own needs.
"""
