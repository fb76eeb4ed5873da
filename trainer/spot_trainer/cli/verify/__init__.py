"""`spot-trainer verify`: does this very script survive being stopped and killed?

It is run once uninterrupted and once interrupted, and both are compared. The parts:
`schedule` (where to interrupt), `printed` (what a script prints), `curves` (two histories
side by side), `pieces` and `causes` (which piece of state is missing) decide and are pure;
`child` and `trial` run processes, `watched` reads files, `drawing` makes a picture, and
`command` is the page that puts them together.
"""
