"""Every fault ever reported, by its kind, with the right value: out of a computation that is not the package's.

One case a fault. Kinds: A text means the same however it comes in; B models that are not causal, or not language
models; C labelled data; D what zero means; E threads, devices, files.
"""

# A. Text means the same however it comes in ------------------------------------------------------------------------


# B. Models that are not causal, or not language models -------------------------------------------------------------


# C. Labelled data --------------------------------------------------------------------------------------------------


# D. What zero means ------------------------------------------------------------------------------------------------


# E. Threads, devices, files ----------------------------------------------------------------------------------------
