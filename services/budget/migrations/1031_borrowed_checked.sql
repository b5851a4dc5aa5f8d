-- In a transaction of its own, so that nobody waits for the look through all limits.
ALTER TABLE member_limit VALIDATE CONSTRAINT member_limit_borrowed;
