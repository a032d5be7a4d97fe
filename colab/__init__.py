"""Runs notebooks as Colab does: with Colab's packages, alone in a folder, and with nothing of ours installed before."""
