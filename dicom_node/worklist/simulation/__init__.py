"""Would the flag help here? A discrete-event simulation of a reading room, with the flag and without it."""
