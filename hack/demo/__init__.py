"""The whole loop to watch: a job loses one machine after another and ends like one that lost none.

`python -m demo` tells the story once and measures it. The parts (install the operator, run
jobs, record what they do, take capacity away, compare runs) are used by the end-to-end
tests as well, so that what is shown is what is tested.
"""
