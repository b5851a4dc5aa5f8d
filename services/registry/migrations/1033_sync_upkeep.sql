-- Who closed a run, which says that all was sent: whoever lets it delete must be somebody else. NULL while it is open, and from before this.
ALTER TABLE sync_run ADD COLUMN closed_by text;
-- What is forgotten of deletions of identities that nobody had.
CREATE INDEX identity_tombstone_time ON identity_tombstone (source_time);
