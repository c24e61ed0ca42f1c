"""Judges of recorded histories: was what the clients saw possible at all?"""
