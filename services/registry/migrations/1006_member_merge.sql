-- Members that are the same person: one, the winner, goes on, and the other's id leads to it.

ALTER TABLE member ADD COLUMN merged_into uuid;            -- the member that goes on in its place: never itself merged
ALTER TABLE member ADD CONSTRAINT member_merged_into FOREIGN KEY (programme_id, merged_into) REFERENCES member
    NOT VALID;                                             -- nobody is merged yet: there is nothing to look through
CREATE INDEX member_by_merged_into ON member (programme_id, merged_into) WHERE merged_into IS NOT NULL;

-- To whom it belonged before merges; NULL for the first owner.
ALTER TABLE external_identity ADD COLUMN origin_member_id uuid;

-- The merges that brought a lot here, the last one last.
ALTER TABLE points_lot ADD COLUMN merges uuid[] NOT NULL DEFAULT '{}';
ALTER TABLE points_entry DROP CONSTRAINT points_entry_kind;
ALTER TABLE points_entry ADD CONSTRAINT points_entry_kind
    CHECK (kind IN ('EARN', 'REDEEM', 'EXPIRE', 'REVERSE', 'MERGE_IN', 'MERGE_OUT'))
    NOT VALID;                     -- what is there held to less

-- Append-only, and without personal data: what fields held before stands in member_change_value, under the winner's version.
CREATE TABLE member_merge (
    programme_id uuid NOT NULL,
    merge_id uuid NOT NULL,            -- UUIDv7
    winner_id uuid NOT NULL,
    loser_id uuid NOT NULL,
    winner_version bigint NOT NULL,    -- the winner's, after the merge
    taken jsonb NOT NULL,              -- field -> {before, taken}: stamps of the fields that the winner took from the loser
    lifetime_points bigint NOT NULL,   -- what the loser brought
    boards jsonb NOT NULL,             -- board -> points that the loser brought
    award_ids uuid[] NOT NULL,         -- what the winner was given for the loser's badges
    actor text NOT NULL,
    merge_time timestamptz NOT NULL,
    CONSTRAINT member_merge_pkey PRIMARY KEY (programme_id, merge_id),
    CONSTRAINT member_merge_winner FOREIGN KEY (programme_id, winner_id) REFERENCES member,
    CONSTRAINT member_merge_loser FOREIGN KEY (programme_id, loser_id) REFERENCES member
);
CREATE INDEX member_merge_by_winner ON member_merge (programme_id, winner_id, merge_id);
CREATE INDEX member_merge_by_loser ON member_merge (programme_id, loser_id, merge_id);

-- Merges that were undone. Append-only.
CREATE TABLE member_unmerge (
    programme_id uuid NOT NULL,
    merge_id uuid NOT NULL,
    actor text NOT NULL,
    unmerge_time timestamptz NOT NULL,
    CONSTRAINT member_unmerge_pkey PRIMARY KEY (programme_id, merge_id),
    CONSTRAINT member_unmerge_merge FOREIGN KEY (programme_id, merge_id) REFERENCES member_merge
);
