"""Pages: charts, tables and the shell around them. Nothing here knows what is shown.

What a chapter of the report is built of, see `Result.chapter`: prose and warnings, charts of
quantities by depth, charts of curves, matrices, tables, pictures.
"""

from polycode_plugins.pages.charts import Axis, Chart, Choice, Series
from polycode_plugins.pages.curve_charts import Curve, curves
from polycode_plugins.pages.depth_charts import Quantity, by_depth
from polycode_plugins.pages.heat_maps import HeatMap, HeatRow
from polycode_plugins.pages.matrices import Matrix
from polycode_plugins.pages.pages import (
    Copyable,
    Facts,
    Figure,
    Page,
    Part,
    Pictures,
    Prose,
    Section,
    Warnings,
    render,
)
from polycode_plugins.pages.pictures import picture_of
from polycode_plugins.pages.tables import Cell, Column, Table, column, names, scalar_columns

__all__ = [
    "Axis",
    "Cell",
    "Chart",
    "Choice",
    "Column",
    "Copyable",
    "Curve",
    "Facts",
    "Figure",
    "HeatMap",
    "HeatRow",
    "Matrix",
    "Page",
    "Part",
    "Pictures",
    "Prose",
    "Quantity",
    "Section",
    "Series",
    "Table",
    "Warnings",
    "by_depth",
    "column",
    "curves",
    "names",
    "picture_of",
    "render",
    "scalar_columns",
]
