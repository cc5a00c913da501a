"""The sweeps of the chapters, one module or package a chapter.

``python -m lib.experiments.<chapter> --scale cpu`` (or ``gpu``) runs them without Jupyter and stores
what it measured under ``data/measured/``; the notebooks call the same functions at a smaller scale.
"""
