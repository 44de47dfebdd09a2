"""What editors and methods are called, in rows, tables and figures."""

STYLECLIP, INSTRUCT = "StyleCLIP", "InstructPix2Pix"
EDITORS = (STYLECLIP, INSTRUCT)
BEFORE, TEXT, GRADIENT, GRADIENT_TEXT = "Before", "Text-based", "Gradient-based", "Gradient-based, from text"
ORTHOGONAL, ORACLE = "Orthogonal", "Oracle"
