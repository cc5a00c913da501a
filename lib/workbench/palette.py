"""The colours of figures.

Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), which stays legible with colour-vision deficiencies:
without yellow, and with its pale hues darkened until a line stands out from paper by 3 to 1. On the page each
becomes its counterpart of the theme, by the variable of the style sheet that has its name.
"""

BLUE = "#0072b2"
ORANGE = "#b97e1e"
GREEN = "#006f53"
VERMILION = "#d55e00"
PURPLE = "#ae598a"
SKY = "#1b8acb"
INK = "#333333"
#: The grid, which is to be seen only when looked for.
GRID = "#b0b0b0"
