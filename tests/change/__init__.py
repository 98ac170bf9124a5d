"""Everything that is changed while there is traffic: nothing fails that was planned."""
