"""Seeing the bias: ranking and misranks, Grad-CAM, geometry, intervals and tests. Arrays in, tables and numbers out."""
