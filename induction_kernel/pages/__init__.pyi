from ._writer import report as report
