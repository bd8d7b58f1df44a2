"""Who did what with whose data: the audit trail of PS3.15 section A.5, chained so that a change is found."""
