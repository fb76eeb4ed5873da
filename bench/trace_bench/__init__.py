"""Jobs with deadlines on a real cluster whose spot nodes come and go as recorded, in compressed time."""
