-- Members that were merged are one person: their limits add up. So that what each has in use counts, one without a limit of its own for a
-- period stands beside the others with nothing.
ALTER TABLE member_limit ADD COLUMN borrowed boolean NOT NULL DEFAULT false; -- an amount of 0 that limits by itself nobody: gone when the merge is undone
