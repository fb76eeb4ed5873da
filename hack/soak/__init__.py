"""Jobs on spot nodes under random disturbances, for as long as wanted, and proof that nothing was lost."""
