"""The comparison: how kinds of units differ, with intervals, floors and a report."""
