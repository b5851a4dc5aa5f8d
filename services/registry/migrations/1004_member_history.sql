-- Members who are suspended, and who changed what of a member.

ALTER TABLE member ADD COLUMN state text NOT NULL DEFAULT 'ACTIVE';
-- All are active: there is nothing to look through.
ALTER TABLE member ADD CONSTRAINT member_state CHECK (state IN ('ACTIVE', 'SUSPENDED')) NOT VALID;
-- Nearly everybody is active, and found by walking the order asked for.
CREATE INDEX member_by_state ON member (programme_id, state, member_id) WHERE state <> 'ACTIVE';

-- Each change that callers can see, by the version that it made. Holds names of fields and no values. Append-only.
CREATE TABLE member_change (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    version bigint NOT NULL,           -- the member's, after the change
    kind text NOT NULL,
    source_system text NOT NULL,       -- the system that the values came from; api for callers
    fields text[] NOT NULL,            -- paths of what changed, e.g. profile.city
    other_member_id uuid,              -- of a merge: the other one
    actor text NOT NULL,
    change_time timestamptz NOT NULL,
    CONSTRAINT member_change_pkey PRIMARY KEY (programme_id, member_id, version),
    CONSTRAINT member_change_member FOREIGN KEY (programme_id, member_id) REFERENCES member
);

-- What was there before each change; what came after it is what stood before the next one, or stands now. These are the persons' own
-- data: an erasure deletes the rows, and what is left says who changed which fields when.
CREATE TABLE member_change_value (
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    field text NOT NULL,               -- as in member_change.fields; or reason, for why it was done
    version bigint NOT NULL,
    content jsonb NOT NULL,
    CONSTRAINT member_change_value_pkey PRIMARY KEY (programme_id, member_id, field, version),
    CONSTRAINT member_change_value_change FOREIGN KEY (programme_id, member_id, version) REFERENCES member_change
);
CREATE INDEX member_change_value_version ON member_change_value (programme_id, member_id, version);
