"""From a study's result to the DICOM Structured Report that goes back into the study.

`codes` names findings in coded terms, `source` reads what a report takes over from its images, `library` the images
that speak for a finding, `wording` has the words of each language, `summary` tells the result to people, `content`
builds the coded tree (TID 1500), `document` puts them together, `write` makes the file durable.
"""
