-- A limit that is set for a person after a merge says what all its ids may have in use together: what another of its ids had for the same
-- period is set aside until they are parted.
ALTER TABLE member_limit ADD COLUMN set_aside bigint CONSTRAINT member_limit_set_aside CHECK (set_aside > 0); -- its own amount meanwhile; amount is 0
ALTER TABLE member_limit ADD COLUMN set_aside_for uuid;    -- the id whose limit holds for both
ALTER TABLE member_limit ADD CONSTRAINT member_limit_set_aside_for CHECK ((set_aside IS NULL) = (set_aside_for IS NULL));

-- What is borrowed limits nobody by itself. A replica from before could set one without making it the member's own; looked through by the
-- next migration.
ALTER TABLE member_limit ADD CONSTRAINT member_limit_borrowed CHECK (NOT borrowed OR amount = 0) NOT VALID;
UPDATE member_limit SET borrowed = false WHERE borrowed AND amount <> 0;
