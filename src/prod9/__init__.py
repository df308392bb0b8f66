"""prod9: learn to draw new 3D medical volumes with FSQ and MaskGIT."""

__version__ = "0.1.0"
