"""Axes, charts and pages, as SVG and HTML text.

    palette   colours and styles, for the light and the dark scheme of the viewer
    axes      scales, ticks, frames, and labels that do not overlap
    charts    line charts and stacks of panels over time
    page      an HTML page of its own

A picture is SVG text without colours of its own: in a page they come from the page, in a file
(`palette.standalone`) from a style that goes with it.
"""
