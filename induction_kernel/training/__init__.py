"""When do heads form, and how is it watched? Small models, their training, and measures at every checkpoint.

`trainer` trains by a `recipe`, on the synthetic language (`language`) or on texts (`texts`); `families` are the runs
whose curves come with the package. `checkpoints` measures anything at every checkpoint of any run; `curves` are the
standard measures, and `phases`, `coupling` and `components` say where and whether they turn.
"""
