"""The bytes on the wire: lib0 values, messages, dialects, and updates as structs.

Pure: no clock, no socket, no pycrdt.
"""
