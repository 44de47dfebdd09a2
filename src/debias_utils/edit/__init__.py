"""Editing pictures with a sentence: which style channels a text asks for, and the edit itself."""
