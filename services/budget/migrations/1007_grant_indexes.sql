-- What is out: a plan that pays for it is not closed.
CREATE INDEX resource_grant_out ON resource_grant (envelope_id) WHERE state IN ('HANDED_OVER', 'RETURNED');

-- A grant's memo entries, in the order in which they were made.
CREATE INDEX memo_entry_of_grant ON memo_entry (grant_id, memo_entry_id);
