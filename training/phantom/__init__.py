"""Simulated brain MR studies: anatomy from the MNI152 tissue maps, lesions by rule, MR signal by equation.

    case.py      a seed → who the patient is and what is wrong (how often, how large, how faint: fixed in advance)
    anatomy.py   the patient's head as maps of tissue      lesions/  what each diagnosis does to them
    template.py  the average head (MNI152), which warp.py bends into the patient's
    signal.py    maps → brightness by the sequence's equation    scanner.py  slices, coil, noise, motion
    protocol.py, vendors.py  which series, and under which names   dicom.py  slices → DICOM files
    report.py    findings → the words of a report, by grammar.py from wordings.py
    priority.py  findings → referral and reading priority        study.py    a seed → one study with its truth
    source.py    phantoms as a source of studies for training    __main__.py the same as DICOM files on disk

They are phantoms: every object says so, and nothing clinical follows from them.
"""
